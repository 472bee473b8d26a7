"""Many runs side by side: what was varied, what each came to, and what mattered, as a table, a file and a page."""

from vqgan.comparison.study import Study, study
from vqgan.comparison.trial import is_trial

__all__ = ["Study", "is_trial", "study"]
