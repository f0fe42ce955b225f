from typing import Any

from absl.flags import FlagHolder

def DEFINE_config_file(
    name: str, default: str | None = None, help_string: str = ..., lock_config: bool = True
) -> FlagHolder[Any]: ...
def get_config_filename(config_flag: Any) -> str: ...
