"""What a run says about its front: the models of a study under the run's options."""

from typing import TYPE_CHECKING

import pandas as pd

from hardware_profiles.profile import HardwareProfile
from nas.front_models import FrontModels
from nas.supernet import Supernet

if TYPE_CHECKING:
    from nas.run import Run


def front_models(run: "Run", frame: pd.DataFrame, profile: HardwareProfile) -> FrontModels:
    """What of a study's rows is exported, and judged by what was measured on the files."""
    supernet = Supernet(run.space)
    supernet.load(run.folder / "supernet.safetensors")
    return FrontModels(
        supernet,
        run.data,
        profile,
        frame,
        run.models_path,
        objectives=run.config.objectives,
        constraints=run.config.constraints,
        architecture=run.fixed,
        calibration=run.config.calibration,
        max_models=run.config.max_models,
    )
