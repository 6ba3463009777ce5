"""Arm Ethos-U55 as an edgepack target: profile.toml and ops.toml in this folder, Vela in compiler.py."""
