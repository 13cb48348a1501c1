"""What holds for every test."""

from hypothesis import HealthCheck, settings

# No limits on time: a slow machine is not a wrong one. The blob repeats a failure elsewhere.
settings.register_profile("assetgen", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("assetgen")
