"""The heart of jdl: gradient operators, learners, and the transforms of learners.

Read `learner.py` first, then `gradient.py`, then a transform: `ema.py`, `guard.py`, `ensemble.py`.
"""
