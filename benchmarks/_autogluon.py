"""Runs AutoGluon-Multimodal for ``automl.py``, in the Python of its own environment."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch


def define_missing_operators():
    """Define torchvision's operators by name, where its build does not fit torch's, since the import wants them."""
    schemas = {
        "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    }
    for name, schema in schemas.items():
        try:
            torch.library.define(f"torchvision::{name}", schema)
        except RuntimeError:
            continue


def main():
    what, folder = sys.argv[1], Path(sys.argv[2])
    define_missing_operators()
    from autogluon.multimodal import MultiModalPredictor

    if what == "fit":
        settings = json.loads((folder / "settings.json").read_text())
        train = pd.read_pickle(folder / "train.pkl")
        problem = None if settings["classifies"] else "regression"
        predictor = MultiModalPredictor(label="target", problem_type=problem, path=str(folder / "model"), verbosity=0)
        predictor.fit(
            train,
            time_limit=settings["seconds"],
            hyperparameters={"model.hf_text.checkpoint_name": settings["checkpoint"], "env.num_gpus": 0},
        )
        return
    predictor = MultiModalPredictor.load(str(folder / "model"))
    output = getattr(predictor, what)(pd.read_pickle(folder / "test.pkl"))
    np.save(folder / "output.npy", np.asarray(output))


if __name__ == "__main__":
    main()
