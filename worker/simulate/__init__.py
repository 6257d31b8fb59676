"""
Brokers on this machine: their wire protocols over a small exchange of our own, with faults on demand.

Values in the middle (`orders`, `book`, `prices`, `matching`, `venues`: no HTTP, no clock of their own), one engine
over them (`exchange`), effects at the rim (`journal`, `serving`, and a package for each broker's protocol).
A simulator never imports an adapter: it is the second witness.
"""
