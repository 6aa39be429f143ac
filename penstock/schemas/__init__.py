"""The wire contract, as pydantic models shared by the API and the client."""
