from common_tools.making import make_load, team_flow

__all__ = ["make_load", "team_flow"]
