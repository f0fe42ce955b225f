"""How the tests here call predict, and look at what it wrote."""

import numpy as np
from PIL import Image

from objdisc_jax import predict

ALL = ("--save", "labels,overlay,panel,npz")


def run(workdir, inputs, output, *more):
    inputs = [inputs] if not isinstance(inputs, list) else inputs
    arguments = ["predict", "--workdir", workdir, "--output", output, "--input", *inputs, *more]
    predict.main(predict.parse([str(argument) for argument in arguments]))


def labels(file):
    return np.asarray(Image.open(file))


def contents(folder):
    """What every file below a folder holds, by its path there; of arrays, what they are."""
    found = {}
    for file in folder.rglob("*"):
        if file.suffix == ".npz":
            with np.load(file) as arrays:
                found |= {f"{file.relative_to(folder)}/{k}": v.tobytes() for k, v in arrays.items()}
        elif file.is_file():
            found[str(file.relative_to(folder))] = file.read_bytes()
    return found


def differences(found, expected):
    """What differs, by name: of floats by how much, of others whether it is there."""
    return {
        name: (
            np.abs(np.subtract(*(np.frombuffer(c[name], np.float32) for c in (found, expected))))
            if ".npz/" in name and name in found and name in expected
            else (name in found, name in expected)
        )
        for name in found | expected
        if found.get(name) != expected.get(name)
    }
