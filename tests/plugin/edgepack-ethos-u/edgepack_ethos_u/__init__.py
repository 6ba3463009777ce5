"""Arm Ethos-U as an edgepack target: profile.toml and the op tables in this folder, Vela in compiler.py."""
