"""Whom the app serves: this machine's user alone, or whoever reaches its address."""

import ipaddress
import json
import os

import streamlit as st

CHECKPOINTS = "TOYDIFF_CHECKPOINTS"
"""The variable in which `toydiff app --checkpoint` says what an open address offers: a JSON list."""
CLASS = "TOYDIFF_CLASS"
"""The variable in which `toydiff app --class` says the address that a class types."""


def is_open() -> bool:
    """Whether others may be here: the server listens on more than this machine's own address."""
    address = st.get_option("server.address")
    try:
        return address != "localhost" and not ipaddress.ip_address(address).is_loopback
    except ValueError:  # no address, which is every one, or a name
        return True


def offered() -> list[str]:
    """The checkpoints that the app was started with."""
    return json.loads(os.environ.get(CHECKPOINTS, "[]"))


def class_address() -> str:
    """What a class types to be here; empty where the app was not started for one."""
    return os.environ.get(CLASS, "")
