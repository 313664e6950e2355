"""What stands behind the Bento: OpenAI's routes in plain ASGI, the arms, and the way into the live store."""
