"""Reports: the table on screen and the self-contained HTML page of a run.

    >>> import tilth.report
    >>> page = tilth.report.write("runs/quickstart")                    # doctest: +SKIP

Everything is read from the run folder, so that a report can be made again at any time, also of a
run that failed half-way. The plotting and templating packages are imported on first use.
"""

from tilth.report.console import show
from tilth.report.page import write

__all__ = ["show", "write"]
