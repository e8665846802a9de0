"""The pages as this machine's user sees them; the tests of an open address say so."""

import pytest


@pytest.fixture(autouse=True)
def own_address():
    """Have Streamlit say that it serves this machine alone."""
    st = pytest.importorskip("streamlit")
    before = st.config.get_option("server.address")
    st.config.set_option("server.address", "localhost")
    yield
    st.config.set_option("server.address", before)
