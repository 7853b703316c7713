"""Compiles what a model needs, for an image: `python -m model.engine.warm_up FOLDER`."""

import sys

from model.engine.build import build_engine
from model.engine.config import EngineConfig

if __name__ == "__main__":
    build_engine(EngineConfig(model=sys.argv[1], device="cpu"), lambda message: None)
