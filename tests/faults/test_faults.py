"""Two minutes of faults of every kind in a whole installation, after which every promise holds."""

import os
from pathlib import Path

from tests.faults import campaign
from tests.faults.plan import Kind

SECONDS = 120.0
SEED = int(os.environ.get("DAMPE_FAULTS_SEED", "3"))


def test_two_minutes(tmp_path: Path) -> None:
    result = campaign.run(SEED, SECONDS, tmp_path)
    print("\n".join(campaign.table(result)))
    assert not result.violations, f"seed {result.seed}"
    assert result.instances > 50 and sum(result.faults.values()) > 30
    assert result.faults[Kind.FILL_DISK] or not os.environ.get("DAMPE_REQUIRE_ALL"), "this machine mounts no disk"
