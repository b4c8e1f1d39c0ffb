"""Prints the lowest versions that settings.ini declares, as constraints for pip.

Those of the package, and of each extra named:

    python .ci/minima.py search viz > minima.txt
    pip install --constraint minima.txt ".[search,viz]"
"""
import sys
from configparser import ConfigParser
from pathlib import Path

config = ConfigParser(delimiters=["="], interpolation=None)
config.read(Path(__file__).parents[1] / "settings.ini", encoding="utf-8")
for key in ["requirements", *(f"{extra}_requirements" for extra in sys.argv[1:])]:
    print(config["DEFAULT"][key].strip().replace(">=", "=="))
