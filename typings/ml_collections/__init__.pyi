# ml_collections types every attribute of a ConfigDict as a union of all it may hold, which no
# checker can use; here it is Any.
from ml_collections import config_dict as config_dict
from ml_collections import config_flags as config_flags
from ml_collections.config_dict import ConfigDict as ConfigDict
