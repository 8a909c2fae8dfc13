"""How many faults the catalogue holds of each kind: it cannot shrink unseen."""

from tests.faults import (
    test_batches,
    test_configurations,
    test_disk,
    test_exact,
    test_hostile,
    test_kill,
    test_targets,
)
from tests.faults.catalogue import COUNTS


def test_the_catalogue_is_whole(capsys):
    """`test_damage.py` counts its own ninety, which depend on the files that Orbax writes."""
    found = {
        "kill -9": test_kill.CHAINS * test_kill.KILLS,
        "damaged checkpoints": COUNTS["damaged checkpoints"],
        "wrong targets": len(test_targets.TABLE),
        "exact resumes": len(test_exact.LEARNERS) * len(test_exact.POINTS),
        "controls that differ": len(test_exact.CONTROLS),
        "full disks": len(test_disk.TABLE),
        "bad batches": len(test_batches.TABLE),
        "bad configurations": len(test_configurations.TABLE),
        "hostile files": len(test_hostile.TABLE),
        "hostile run folders": len(test_hostile.FOREIGN),
    }
    with capsys.disabled():
        print("\n" + ", ".join(f"{number} {kind}" for kind, number in found.items()), end=" ")
    assert found == COUNTS
