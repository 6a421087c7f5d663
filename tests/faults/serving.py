"""``python serving.py PORT``: the miniature's base behind OpenAI's protocol, as a process that can be killed."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins" / "cort_openai"))
from openai_server import Server

from cort_tiny import base_path

torch.set_num_threads(1)
uvicorn.run(Server(base_path()).app, port=int(sys.argv[1]), log_level="error", lifespan="off")
