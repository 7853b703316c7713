"""The bundled demo model: its weights, and all that is needed to make them again."""

from __future__ import annotations

from pathlib import Path

DEMO_MODEL = Path(__file__).parent / "weights"
"""The folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer` load."""
