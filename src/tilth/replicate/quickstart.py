"""The quickstart as a replication: does tuning on self-written data beat the base model?

Each test seed writes its own data, trains its own model and sits exams that nothing before has
seen, so that the interval covers the randomness of data and training too, and not only that of the
exam. Two arms guard the claim: the base model in its own plain form with worked examples (so that
the gain is not only the chat form), and the same tuning on shuffled answers (so that the gain is not
only more training).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tilth.cost import Ledger
from tilth.errors import RecipeError
from tilth.recipe import Recipe, references
from tilth.replicate.claims import Claim, Greater
from tilth.replicate.frame import Arm, Measured, Replication, shared_folder
from tilth.seeds import Seed
