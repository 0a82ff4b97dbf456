"""Runs an exported file as other programs do: several cells at once, for all that it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cnmc.deploy.runtime import (
    INPUT,
    OPENVINO_OPTIONS,
    OUTPUT,
    PROBABILITY,
    Images,
    Logits,
    openvino_core,
    require,
)
from cnmc.deploy.torchscript import run_program


def run_file(path: Path, images: Images) -> tuple[Logits, Logits]:
    """Return the logits, one a rotation, and the probability of each cell.

    Args:
        path: A file of :mod:`cnmc.deploy.formats`; it is trusted.
        images: Cells as the file takes them, which it is given together.

    Raises:
        CnmcError: What runs it is not installed.
    """
    if path.suffix == ".onnx":
        runtime = require("onnxruntime")
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        logits, probs = session.run([OUTPUT, PROBABILITY], {INPUT: images})
    elif path.suffix == ".xml":
        model = openvino_core().compile_model(path, "CPU", OPENVINO_OPTIONS)
        found = model({INPUT: images})
        logits, probs = found[OUTPUT], found[PROBABILITY]
    else:
        program = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        logits, probs = run_program(program, torch.from_numpy(np.array(images)))
    return np.asarray(logits), np.asarray(probs)
