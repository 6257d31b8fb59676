"""What becomes of an order after its acceptance: `life` decides, `working` keeps and publishes, `follower` looks."""

from worker.fills.follower import Follower, FollowRules
from worker.fills.working import Working

__all__ = ["FollowRules", "Follower", "Working"]
