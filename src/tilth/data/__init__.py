"""Rows in, rows out: readers with quarantine, writers, mixing, and what keeps data honest.

>>> from tilth.data import Example, write_rows
>>> Example.pair("2 + 2?", "4").prompt
'2 + 2?'
"""

from tilth.data.decontaminate import Contamination, Decontamination, decontaminate
from tilth.data.deduplicate import Deduplication, Duplicate, deduplicate
from tilth.data.example import Example, Message, Role, content_id
from tilth.data.forms import FORMS, Reject, Require, convert, recognise
from tilth.data.mix import Mixture, allocate, mix
from tilth.data.read import Rows, read
from tilth.data.write import Rejection, write_rejected, write_rows

__all__ = [
    "FORMS",
    "Contamination",
    "Decontamination",
    "Deduplication",
    "Duplicate",
    "Example",
    "Message",
    "Mixture",
    "Reject",
    "Rejection",
    "Require",
    "Role",
    "Rows",
    "allocate",
    "content_id",
    "convert",
    "decontaminate",
    "deduplicate",
    "mix",
    "read",
    "recognise",
    "write_rejected",
    "write_rows",
]
