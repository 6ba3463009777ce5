"""Arm Ethos-U55 as an edgepack target: profile.toml and ops.toml beside this file, Vela in compiler.py."""
