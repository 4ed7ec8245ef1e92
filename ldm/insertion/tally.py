"""What a run comes to: how many results are new, what was skipped, which seams show; and its exit code."""

from __future__ import annotations

from dataclasses import dataclass, field

from ldm.insertion.journal import Journal
from ldm.insertion.work import Outcome

SEAMS_SHOW = 1  # exit code if a seam is above the limit; 2 is a mistake before anything was made
SKIPPED = 10  # exit code of no skipped item; each one adds 1
MOST = 100  # skipped items that an exit code tells apart
NAMED = 5  # files that a line names


@dataclass
class Tally:
    """Counts outcomes. `max_seam`: the largest seam ratio that is fine; 0: any."""

    max_seam: float = 0
    made: int = 0
    kept: int = 0
    skipped: int = 0
    seams: dict[str, float] = field(default_factory=dict)

    def add(self, outcome: Outcome, journal: Journal) -> None:
        """Count one item; results that were there already have a seam too."""
        self.made += len(outcome.made)
        if outcome.error:
            self.skipped += 1
            return
        self.kept += len(outcome.files) - len(outcome.made)
        for file in outcome.files.values():
            if 0 < self.max_seam < journal.seam(file):
                self.seams[file] = journal.seam(file)

    @property
    def exit_code(self) -> int:
        """0: all is fine; 1: a seam is above the limit; 10 + n: n items were skipped, at most 100 counted."""
        if self.skipped:
            return SKIPPED + min(self.skipped, MOST)
        return SEAMS_SHOW if self.seams else 0

    def complaints(self) -> list[str]:
        """One line for each thing that is not fine."""
        lines = [f"error: {self.skipped} skipped, {self.made + self.kept} done"] if self.skipped else []
        if self.seams:
            worst = sorted(self.seams.items(), key=lambda entry: -entry[1])
            named = ", ".join(f"{file} ({seam:.2f})" for file, seam in worst[:NAMED])
            more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
            lines.append(f"error: the seam of {named}{more} is above {self.max_seam:g}")
        return lines
