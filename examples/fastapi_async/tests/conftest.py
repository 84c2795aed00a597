"""What every FastAPI project has: a client, and the event loop that its tests run on."""

import pytest
from app.main import app
from httpx import ASGITransport, AsyncClient


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def client():
    async with AsyncClient(transport=ASGITransport(app), base_url="http://clinic.example") as client:
        yield client
