"""Which distribution provides an import: by what is declared, and by a table of those whose names differ.

Nothing is asked of an index. Discovery uses this module, so it is cheap to import.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from orchestrator.requirements import Requirements, normalised

# An import name, or the beginning of a dotted one, and the distributions that provide it; the usual one first. Only
# where the names differ by more than PEP 503 evens out.
_DIFFERENT_NAMES = """
_pytest                      pytest
airflow                      apache-airflow apache-airflow-core
altair                       altair vega-altair
attr                         attrs
barcode                      python-barcode
bs4                          beautifulsoup4
bson                         pymongo bson
clr                          pythonnet
community                    python-louvain
cpuinfo                      py-cpuinfo
Crypto                       pycryptodome pycrypto
Cryptodome                   pycryptodomex
cv2                          opencv-python opencv-python-headless opencv-contrib-python opencv-contrib-python-headless
databricks.connect           databricks-connect
databricks.sdk               databricks-sdk databricks-connect
databricks.sql               databricks-sql-connector
dateutil                     python-dateutil
dbt                          dbt-core dbt
dns                          dnspython
docket                       pydocket
docx                         python-docx
dotenv                       python-dotenv
editor                       python-editor
elasticsearch_dsl            elasticsearch-dsl elasticsearch
engineio                     python-engineio
faiss                        faiss-cpu faiss-gpu
ffmpeg                       ffmpeg-python
fitz                         pymupdf
gi                           pygobject
git                          gitpython
github                       pygithub
gitlab                       python-gitlab
gnupg                        python-gnupg
google.ads                   google-ads
google.analytics.data        google-analytics-data
google.api_core              google-api-core
google.auth                  google-auth
google.cloud.dataproc_v1     google-cloud-dataproc
google.cloud.firestore_v1    google-cloud-firestore
google.cloud.logging_v2      google-cloud-logging
google.cloud.pubsub_v1       google-cloud-pubsub
google.cloud.run_v2          google-cloud-run
google.cloud.scheduler_v1    google-cloud-scheduler
google.cloud.secretmanager   google-cloud-secret-manager
google.cloud.secretmanager_v1 google-cloud-secret-manager
google.cloud.tasks_v2        google-cloud-tasks
google.cloud.vision_v1       google-cloud-vision
google.genai                 google-genai
google.generativeai          google-generativeai
google.oauth2                google-auth
google.protobuf              protobuf
googleapiclient              google-api-python-client
grpc                         grpcio
grpc_status                  grpcio-status
hcl2                         python-hcl2
igraph                       igraph python-igraph
imblearn                     imbalanced-learn
impala                       impyla
jenkins                      python-jenkins
jose                         python-jose
jwt                          pyjwt
kafka                        kafka-python kafka-python-ng
keycloak                     python-keycloak
ldap                         python-ldap
Levenshtein                  levenshtein python-levenshtein
magic                        python-magic python-magic-bin
markdown_it                  markdown-it-py
memcache                     python-memcached
mpl_toolkits                 matplotlib
msoffcrypto                  msoffcrypto-tool
mysql                        mysql-connector-python mysql-connector
MySQLdb                      mysqlclient
nacl                         pynacl
office365                    office365-rest-python-client
OpenSSL                      pyopenssl
opentelemetry                opentelemetry-api
orchestrator                 prefect-orchestrator
osgeo                        gdal
paho                         paho-mqtt
PIL                          pillow pillow-simd
pkg_resources                setuptools
psycopg                      psycopg psycopg-binary
psycopg2                     psycopg2 psycopg2-binary
pylab                        matplotlib
pythoncom                    pywin32
pythonjsonlogger             python-json-logger
pywintypes                   pywin32
pyximport                    cython
rapidjson                    python-rapidjson
rest_framework               djangorestframework
ruamel.yaml                  ruamel-yaml
serial                       pyserial
skimage                      scikit-image
sklearn                      scikit-learn scikit-learn-intelex
skopt                        scikit-optimize
slack                        slackclient
slugify                      python-slugify unicode-slugify
snappy                       python-snappy
snowflake.connector          snowflake-connector-python
snowflake.core               snowflake
snowflake.ml                 snowflake-ml-python
snowflake.snowpark           snowflake-snowpark-python
snowflake.sqlalchemy         snowflake-sqlalchemy
socketio                     python-socketio
socks                        pysocks
speech_recognition           speechrecognition
tabula                       tabula-py
telegram                     python-telegram-bot
tensorflow                   tensorflow tensorflow-cpu tensorflow-gpu tensorflow-macos intel-tensorflow
tlz                          toolz
umap                         umap-learn
usb                          pyusb
vertexai                     google-cloud-aiplatform
websocket                    websocket-client
win32api                     pywin32
win32com                     pywin32
win32con                     pywin32
win32file                    pywin32
win32gui                     pywin32
wx                           wxpython
xgboost                      xgboost xgboost-cpu
Xlib                         python-xlib
yaml                         pyyaml
zmq                          pyzmq
zoneinfo                     backports-zoneinfo
"""
_DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    name: tuple(distributions) for name, *distributions in map(str.split, _DIFFERENT_NAMES.strip().splitlines())
}
# Packages that many distributions share, and how many parts of a dotted name tell them apart.
_SHARED_PACKAGES = {"google.cloud": 3, "azure": 2, "azure.keyvault": 3, "azure.storage": 3, "azure.data": 3}
_SHARED_PACKAGES |= {"azure.mgmt": 3, "azure.ai": 3, "backports": 2, "zope": 2, "jaraco": 2}
_SHARED_TOPS = {package.partition(".")[0] for package in _SHARED_PACKAGES}


def distribution_of(module: str, declared: Requirements | None = None) -> str:
    """The distribution that provides an import.

    Args:
        module: the import's name, dotted where it is: `google.cloud.storage`.
        declared: what is installed; where several distributions provide the import, the declared one counts.

    Returns:
        Its normalised name: one that is declared; else the usual one, by a table of those whose names differ; else
        the import's own.
    """
    candidates = _candidates(module)
    names = declared.names if declared is not None else frozenset[str]()
    return next((each for each in candidates if each in names), candidates[0])


def declared_provider(module: str, declared: Requirements) -> str | None:
    """The declared distribution that provides an import, or brings what provides it.

    Args:
        module: the import's name, dotted where it is.
        declared: what is installed.

    Returns:
        Its normalised name; None where none is declared. What is called after the import counts as well (`dbt-postgres`
        for dbt, `acme-core` for acme, `python-telegram` for telegram): a plugin brings what it extends, and one
        distribution of a shared package cannot be told from the next.
    """
    provided = declared.names | declared.extras
    candidates = _candidates(module)
    if exact := next((each for each in candidates if each in provided), None):
        return exact
    top = normalised(module.partition(".")[0])
    beginnings = {candidates[0]} if top in _SHARED_TOPS else {candidates[0], top}
    return next((name for name in sorted(provided) if _is_called_after(name, beginnings, top)), None)


def _is_called_after(name: str, beginnings: Iterable[str], top: str) -> bool:
    if name.startswith("types-") or name.endswith("-stubs"):
        return False
    is_plugin = any(name.startswith(f"{beginning}-") for beginning in beginnings)
    return is_plugin or name in (f"python-{top}", f"py-{top}", f"py{top}", f"{top}py")


@cache
def is_shared_package(module: str) -> bool:
    """Do several distributions put modules into this package?

    Args:
        module: dotted: `google.cloud`.

    Returns:
        Whether only the name behind it tells which distribution an import needs (`from google.cloud import storage`).
    """
    known = {*_DISTRIBUTIONS, *_SHARED_PACKAGES}
    is_cut_short = _SHARED_PACKAGES.get(module, 0) > module.count(".") + 1
    return is_cut_short or (module not in _DISTRIBUTIONS and any(name.startswith(f"{module}.") for name in known))


@cache
def _candidates(module: str) -> tuple[str, ...]:
    """The distributions that may provide an import, the likeliest first."""
    parts = module.split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    different = [name for prefix in prefixes for name in _DISTRIBUTIONS.get(prefix, ())]
    shared = next((_SHARED_PACKAGES[prefix] for prefix in prefixes if prefix in _SHARED_PACKAGES), 0)
    usual = [] if different else ["-".join(parts[:shared] if shared else parts[:1])]
    return tuple(dict.fromkeys(normalised(name) for name in (*different, *usual, *prefixes)))


def installed_modules() -> frozenset[str]:
    """The import names of the environment that runs us, its first parts."""
    import importlib.metadata  # takes longer than all the rest of this module

    return frozenset(importlib.metadata.packages_distributions())
