"""Members that are pipelines, whose first steps may turn items into missing rows."""

from contextlib import contextmanager, nullcontext

from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import get_routing_for_object


def member_tags(member):
    """Give a member's tags; a pipeline accepts NaN if its first step does, which its own tags leave out."""
    tags = get_tags(member)
    if isinstance(member, Pipeline):
        tags.input_tags.allow_nan = member_tags(member.steps[0][1]).input_tags.allow_nan
    return tags


def split_lenient(member):
    """Split a pipeline after each step that may turn items into missing rows; these end there for later steps."""
    if isinstance(member, Pipeline) and len(member.steps) > 1:
        first = member.steps[0][1]
        params = first.get_params() if hasattr(first, "get_params") else {}
        lenient = any(key.split("__")[-1] == "on_error" and value == "missing" for key, value in params.items())
        if lenient or getattr(first, "_may_lose_items", False):
            return [member[:1], *split_lenient(member[1:])]
    return [member]


def join_lenient(member, parts):
    """Give the pipeline of which ``parts`` were fitted one by one."""
    if len(parts) > 1:
        member.steps = [step for part in parts for step in part.steps]
    return member


def consumed(part, method, params):
    """Give those of a pipeline's parameters that one part of it asks for."""
    if not params:
        return params
    names = get_routing_for_object(part).consumes(method, params.keys())
    return {name: params[name] for name in names}


def step_of(progress, task_name, member):
    """Give the step of an owner's fit in which a member is fitted, whole or part by part."""
    n_parts = len(split_lenient(member))
    return progress.subcontext(task_name=task_name, max_subtasks=n_parts if n_parts > 1 else 0)


@contextmanager
def propagated(step, owner, member):
    """Report the fit of a member to the owner's callbacks, and hand them on to a member that supports them."""
    with step.propagate_callback_context(member) if hasattr(member, "set_callbacks") else nullcontext():
        step.call_on_fit_task_begin(estimator=owner)
        yield
        step.call_on_fit_task_end(estimator=owner)


@contextmanager
def part_steps(step, owner, parts):
    """Give the steps, for :func:`propagated`, in which the parts of a member are fitted; report what they make up."""
    if len(parts) == 1:
        yield [step]
        return
    step.call_on_fit_task_begin(estimator=owner)
    yield [step.subcontext(task_name=", ".join(name for name, _ in part.steps)) for part in parts]
    step.call_on_fit_task_end(estimator=owner)
