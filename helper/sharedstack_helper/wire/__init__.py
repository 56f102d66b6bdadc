"""The wire path's side of the helper: engines on lent interfaces, and connections that go there and come back."""
