"""GitOps for Prefect, run by Prefect itself.

The public names below are loaded when they are first used, so that `import orchestrator` (and commands that only
read source) never pay for importing Prefect.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time __getattr__ below does it
    from orchestrator.builder import DeploymentBuilder as DeploymentBuilder
    from orchestrator.code_deployments import DEPLOYMENT_CONFIGS as DEPLOYMENT_CONFIGS
    from orchestrator.code_deployments import FlowDeployment as FlowDeployment
    from orchestrator.code_deployments import deploy_all_flows as deploy_all_flows
    from orchestrator.config import ConfigurationManager as ConfigurationManager
    from orchestrator.config import DeploymentTemplate as DeploymentTemplate
    from orchestrator.config import EnvironmentConfig as EnvironmentConfig
    from orchestrator.config import ResourceLimits as ResourceLimits
    from orchestrator.config import WorkPoolConfig as WorkPoolConfig
    from orchestrator.discovery import FlowDiscovery as FlowDiscovery
    from orchestrator.model import CleanupResult as CleanupResult
    from orchestrator.model import DeploymentConfig as DeploymentConfig
    from orchestrator.model import DeploymentResult as DeploymentResult
    from orchestrator.model import FlowMetadata as FlowMetadata
    from orchestrator.model import ValidationError as ValidationError
    from orchestrator.model import ValidationResult as ValidationResult
    from orchestrator.submission import FlowSubmission as FlowSubmission
    from orchestrator.submission import RunOutcome as RunOutcome
    from orchestrator.submission import cancel_children as cancel_children
    from orchestrator.submission import flow_submitter as flow_submitter
    from orchestrator.submission import trigger_multiple_subflows as trigger_multiple_subflows
    from orchestrator.submission import trigger_subflow as trigger_subflow
    from orchestrator.submission import wait_for_flow_runs as wait_for_flow_runs
    from orchestrator.validation import FlowValidator as FlowValidator

__version__ = "0.1.0"

_HOME_OF = {
    "FlowMetadata": "model",
    "ValidationResult": "model",
    "ValidationError": "model",
    "DeploymentConfig": "model",
    "DeploymentResult": "model",
    "CleanupResult": "model",
    "FlowDiscovery": "discovery",
    "FlowValidator": "validation",
    "ConfigurationManager": "config",
    "EnvironmentConfig": "config",
    "WorkPoolConfig": "config",
    "ResourceLimits": "config",
    "DeploymentTemplate": "config",
    "DeploymentBuilder": "builder",
    "FlowDeployment": "code_deployments",
    "DEPLOYMENT_CONFIGS": "code_deployments",
    "deploy_all_flows": "code_deployments",
    "FlowSubmission": "submission",
    "RunOutcome": "submission",
    "cancel_children": "submission",
    "flow_submitter": "submission",
    "trigger_subflow": "submission",
    "trigger_multiple_subflows": "submission",
    "wait_for_flow_runs": "submission",
}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604 - the names are strings, resolved by __getattr__


def __getattr__(name: str) -> Any:
    """Resolve a public name on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
