"""An inventory as a CycloneDX bill of materials: what is in it, and what needs what."""

import uuid
from datetime import datetime
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from scripts.package.inventory import canonical

NAMESPACE = uuid.UUID("6a1b1c6e-7f0b-5c3e-9d52-0c3b8f6f3a11")


def bill(inventory: dict[str, Any], image: dict[str, str], at: datetime) -> Bom:
    """The same image gives the same bill."""
    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, image["id"]))
    bom.metadata.timestamp = at
    root = _image(image)
    bom.metadata.component = root
    python = Component(
        name="python",
        version=inventory["python"],
        type=ComponentType.PLATFORM,
        bom_ref=f"pkg:generic/python@{inventory['python']}",
        purl=PackageURL("generic", None, "python", inventory["python"]),
    )
    packages = {
        canonical(one["name"]): _python_package(one) for one in inventory["python_packages"]
    }
    system = [_debian_package(one, inventory["system"]) for one in inventory["debian_packages"]]
    for component in (python, *packages.values(), *system):
        bom.components.add(component)
    wanted: set[str] = set()
    for one in inventory["python_packages"]:
        needs = [name for name in one["requires"] if name in packages]
        wanted.update(needs)
        bom.register_dependency(
            packages[canonical(one["name"])], [packages[name] for name in needs]
        )
    direct = [component for name, component in packages.items() if name not in wanted]
    bom.register_dependency(root, [python, *direct, *system])
    return bom


def written(bom: Bom) -> str:
    return JsonV1Dot6(bom).output_as_string(indent=1)


def problem(text: str) -> str | None:
    """What the schema has against a bill."""
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return None if error is None else str(error)


def _image(image: dict[str, str]) -> Component:
    name, _, tag = image["name"].rpartition(":")
    url = PackageURL("oci", None, name.rpartition("/")[2], image["id"], {"tag": tag})
    properties = [
        Property(name=f"qna:image:{key}", value=value)
        for key, value in sorted(image.items())
        if key != "name"
    ]
    return Component(
        name=name,
        version=tag,
        type=ComponentType.CONTAINER,
        bom_ref=url.to_string(),
        purl=url,
        properties=properties,
    )


def _python_package(one: dict[str, Any]) -> Component:
    url = PackageURL("pypi", None, canonical(one["name"]), one["version"])
    return Component(
        name=one["name"],
        version=one["version"],
        type=ComponentType.LIBRARY,
        bom_ref=url.to_string(),
        purl=url,
        licenses=_licenses(one),
    )


def _licenses(one: dict[str, Any]) -> list[Any]:
    factory = LicenseFactory()
    if one["license"]:
        return [factory.make_from_string(one["license"])]
    # "License :: OSI Approved :: MIT License" says it less exactly, but says it.
    names = {text.rpartition(" :: ")[2] for text in one["classifiers"]} - {"OSI Approved"}
    return [factory.make_with_name(name) for name in sorted(names)]


def _debian_package(one: dict[str, str], system: dict[str, str]) -> Component:
    qualifiers = {"arch": one["architecture"]}
    if system.get("VERSION_ID"):
        qualifiers["distro"] = f"{system.get('ID', 'debian')}-{system['VERSION_ID']}"
    if one["source"] != one["name"]:
        qualifiers["upstream"] = one["source"]
    url = PackageURL("deb", system.get("ID", "debian"), one["name"], one["version"], qualifiers)
    return Component(
        name=one["name"],
        version=one["version"],
        type=ComponentType.LIBRARY,
        bom_ref=url.to_string(),
        purl=url,
    )
