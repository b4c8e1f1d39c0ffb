"""Hands the version, requirements and scripts of settings.ini to setuptools."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

config = ConfigParser(delimiters=["="], interpolation=None)
config.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
lines = lambda key: settings[key].split("\n")[1:]

setup(
    version=settings["version"],
    keywords=settings["keywords"],
    install_requires=lines("requirements"),
    extras_require={key.removesuffix("_requirements"): lines(key)
                    for key in settings if key.endswith("_requirements")},
    entry_points={"console_scripts": lines("console_scripts"),
                  "nbdev": ["cosmoflow = cosmoflow._modidx:d"]},
)
