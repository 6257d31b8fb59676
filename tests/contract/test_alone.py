"""A strategy needs pydantic to speak to the worker, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Every package that pydantic itself needs, and the standard library.
PROGRAM = """
import sys
ALLOWED = {"contracts", "pydantic", "pydantic_core"}
ALLOWED |= {"__main__", "annotated_types", "typing_extensions", "typing_inspection"}

class Wall:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if not (top in ALLOWED or top in sys.stdlib_module_names or top.startswith("_sysconfigdata")):
            raise ModuleNotFoundError(f"{name} is not to be had")

sys.path[:0] = [ROOT, PACKAGES]
sys.meta_path.insert(0, Wall())
import contracts, contracts.schema
for name in contracts.__all__:
    getattr(contracts, name)
intent = contracts.load_intent(
    '{"intent_id":"a","intent_type":"MARKET","symbol":"005930","side":"BUY","quantity":10,'
    '"created_at":"2026-11-23T09:00:00+09:00"}'
)
assert contracts.load_intent(contracts.dump(intent)) == intent
assert dict(contracts.schema.files())
loaded = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names - ALLOWED
print(*sorted(name for name in loaded if not name.startswith("_sysconfigdata")))
"""


def test_the_contracts_work_where_only_pydantic_is_installed() -> None:
    program = f"ROOT = {str(ROOT)!r}\nPACKAGES = {sysconfig.get_path('purelib')!r}\n{PROGRAM}"

    # -S: no site-packages and none of its .pth hooks; the wall lets pydantic's own packages through.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stderr, done.stdout, done.returncode) == ("", "\n", 0)


def test_every_public_name_is_listed_once_and_in_order() -> None:
    import contracts

    assert contracts.__all__ == sorted(set(contracts.__all__))
