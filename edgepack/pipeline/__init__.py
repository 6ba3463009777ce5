"""The stages of every command and the order they run in; `build` shows the whole sequence."""
