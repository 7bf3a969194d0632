"""The kind node image of the bare path.

A Debian root file system, kind's node files from its Go module, Kubernetes built from its Go modules, and every image
that a control plane needs, preloaded.

The image's tag carries a hash of all that goes into it (module pins, this file): it is built when one changed.
Bookworm on purpose: its systemd 252 still runs on cgroup v1, 256 and later refuse.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from hack.cluster import engine, machine, tools
from hack.cluster.errors import Problem
from hack.cluster.load import import_into
from hack.cluster.paths import STATE, TOOLS, digest
from hack.cluster.rootfs import LABEL, Rootfs, ensure_rootfs
from hack.cluster.stages import Stages, run

NODE_ROOTFS = Rootfs(
    name="novacore/node-rootfs",
    suite="bookworm",
    packages=[
        "systemd",
        "systemd-sysv",
        "dbus",
        "containerd",
        "runc",
        "containernetworking-plugins",
        "conntrack",
        "iptables",
        "nftables",
        "iproute2",
        "ethtool",
        "kmod",
        "mount",
        "util-linux",
        "jq",
        "procps",
        "socat",
        "e2fsprogs",
        "pigz",
        "curl",
        "ca-certificates",
    ],
)
# kube-proxy calls iptables, conntrack and modprobe; the storage helper needs any root file system with `sh`.
SMALL_ROOTFS = Rootfs(
    name="novacore/small-rootfs", suite="bookworm", packages=["iptables", "nftables", "conntrack", "kmod"]
)

REPOSITORY = "novacore/node"
CNI_CONFIG = """{
  "cniVersion": "1.0.0", "name": "novacore",
  "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local",
              "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"""
DOCKERFILE = """FROM novacore/node-rootfs
COPY files/ /
COPY bin/ /usr/bin/
RUN chmod 0755 /usr/local/bin/* /kind/bin/* \\
 && for b in containerd ctr containerd-shim-runc-v2; do ln -sf /usr/bin/$b /usr/local/bin/$b; done \\
 && mkdir -p /opt/cni && ln -sfn /usr/lib/cni /opt/cni/bin \\
 && rm -f /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* \\
      /lib/systemd/system/local-fs.target.wants/* /lib/systemd/system/sockets.target.wants/*udev* \\
      /lib/systemd/system/sockets.target.wants/*initctl* /lib/systemd/system/basic.target.wants/* \\
      /lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \\
 && echo ReadKMsg=no >> /etc/systemd/journald.conf \\
 && systemctl enable kubelet containerd undo-mount-hacks && systemctl mask systemd-binfmt \\
 && mkdir -p /etc/kubernetes/manifests /kind/manifests /etc/cni/net.d \\
 && ctr oci spec | jq '.hooks.createContainer[.hooks.createContainer|length] |= . + \\
      {"path": "/kind/bin/mount-product-files.sh"} | del(.process.rlimits)' > /etc/containerd/cri-base.json
ENV container=docker
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
"""


def image() -> str:
    """Return the name of the node image that belongs to this checkout."""
    modules = [TOOLS / name for name in ("kubernetes", "coredns", "local-path-provisioner", "kind", "pause")]
    wrapper = ["plain"] if machine.has_sys_resource() else [TOOLS / "runtime-wrapper"]
    here = Path(__file__)
    return f"{REPOSITORY}:{tools.KUBERNETES}-{digest(here, here.with_name('rootfs.py'), *modules, *wrapper)}"


def ensure(stages: Stages) -> str:
    """Build the node image unless Docker has it; return its name."""
    name = image()  # once: the answer follows the files, and somebody may edit one during the minutes below
    if engine.has_image(name):
        return name
    built: dict[str, Path] = {}
    for module, title in (
        ("kubernetes", "building Kubernetes and etcd from Go modules (minutes, once)"),
        ("coredns", "building CoreDNS"),
        ("local-path-provisioner", "building the storage provisioner"),
    ):
        with stages.stage(title):
            built[module] = tools.build_go(module)
    ensure_rootfs(NODE_ROOTFS, stages)
    ensure_rootfs(SMALL_ROOTFS, stages)
    with stages.stage("building the control plane's images"):
        preload = _control_plane(built)
    with stages.stage("building the node image"), tempfile.TemporaryDirectory(dir=STATE) as scratch:
        bare = f"{name}-bare"
        _context(Path(scratch), built["kubernetes"])
        engine.build(Path(scratch), tag=bare)
        _preload(bare, name, preload)
        run([engine.docker(), "rmi", bare])
    engine.remove_older(REPOSITORY, keep=name)
    return name


def _kind_module() -> Path:
    run([tools.go(), "mod", "download"], cwd=TOOLS / "kind")
    listed = run([tools.go(), "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kind"], cwd=TOOLS / "kind")
    return Path(listed.strip())


def _storage() -> tuple[str, list[str]]:
    """Return kind's default storage manifest and the two images it names, read from the Go constant in its module."""
    source = (_kind_module() / "pkg/build/nodeimage/const_storage.go").read_text()
    constants = dict(re.findall(r'const (\w+) = "([^"]+)"', source))
    found = re.search(r"const defaultStorageManifest = `(.*)`", source, re.DOTALL)
    if found is None:
        raise Problem("kind's module no longer holds its storage manifest where we look", "update hack/cluster/node.py")
    manifest = found[1]
    for name, value in constants.items():
        manifest = manifest.replace(f"` + {name} + `", value)
    return manifest, [constants["storageProvisionerImage"], constants["storageHelperImage"]]


def control_plane_names(listed: str, sandbox: str) -> dict[str, list[str]]:
    """Map a program to the image names under which the node looks for it.

    `listed` is what `kubeadm config images list` prints; `sandbox` the pause image of containerd's configuration, which
    is not always kubeadm's.
    """
    names: dict[str, list[str]] = {"pause": [sandbox]}
    for image_name in listed.split():
        program = image_name.rpartition("/")[2].partition(":")[0]
        names.setdefault(program, [])
        if image_name not in names[program]:
            names[program].append(image_name)
    return names


def _control_plane(built: dict[str, Path]) -> list[str]:
    """Build an image per program of the control plane and for storage; return the names to preload."""
    kubernetes = built["kubernetes"]
    listed = run([kubernetes / "kubeadm", "config", "images", "list", "--kubernetes-version", tools.KUBERNETES])
    config = (_kind_module() / "images/base/files/etc/containerd/config.toml").read_text()
    sandbox = re.search(r'sandbox_image = "([^"]+)"', config)
    if sandbox is None:
        raise Problem("kind's containerd configuration names no sandbox image", "update hack/cluster/node.py")
    _, (provisioner, helper) = _storage()
    names = control_plane_names(listed, sandbox[1]) | {"local-path-provisioner": [provisioner]}
    binaries = {
        "etcd": kubernetes / "server",  # how its module calls it
        "coredns": built["coredns"],
        "pause": tools.build_go("pause"),
        "local-path-provisioner": built["local-path-provisioner"] / "local-path-provisioner",
    }
    for program, images in names.items():
        _program_image(program, binaries.get(program, kubernetes / program), images)
    run([engine.docker(), "tag", SMALL_ROOTFS.name, helper])
    return [*(name for images in names.values() for name in images), helper]


def _program_image(program: str, binary: Path, names: list[str]) -> None:
    base = SMALL_ROOTFS.name if program == "kube-proxy" else "scratch"
    lines = [f"FROM {base}", f"COPY {program} /usr/local/bin/{program}"]
    if base == "scratch":
        lines += ["ENV PATH=/usr/local/bin", f"LABEL {LABEL}={program}"]
    if program in ("coredns", "pause"):  # the others are called by name in kubeadm's manifests
        lines.append(f'ENTRYPOINT ["/usr/local/bin/{program}"]')
    with tempfile.TemporaryDirectory(dir=STATE) as scratch:
        context = Path(scratch)
        shutil.copy2(binary, context / program)
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        engine.build(context, tag=names[0])
    for name in names[1:]:
        run([engine.docker(), "tag", names[0], name])


def _context(context: Path, kubernetes: Path) -> None:
    files = context / "files"
    shutil.copytree(_kind_module() / "images/base/files", files)
    for path in [context, *files.rglob("*")]:  # the module cache is read-only
        path.chmod(0o755 if path.is_dir() else 0o644)
    binaries = context / "bin"
    binaries.mkdir()
    for name in ("kubelet", "kubeadm", "kubectl"):
        shutil.copy2(kubernetes / name, binaries / name)
    (files / "kind").mkdir(exist_ok=True)
    (files / "kind/version").write_text(tools.KUBERNETES)
    manifests = files / "kind/manifests"
    manifests.mkdir(exist_ok=True)
    (manifests / "default-storage.yaml").write_text(_storage()[0])
    (manifests / "default-cni.yaml").write_text("")
    network = files / "etc/cni/net.d"
    network.mkdir(parents=True)
    (network / "10-novacore.conflist").write_text(CNI_CONFIG)
    if not machine.has_sys_resource():
        (files / "usr/local/sbin").mkdir(parents=True, exist_ok=True)
        shutil.copy2(tools.build_go("runtime-wrapper"), files / "usr/local/sbin/runc")
        config = files / "etc/containerd/config.toml"
        text = config.read_text().replace("restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
        config.write_text(text)
    (context / "Dockerfile").write_text(_dockerfile())


def _dockerfile() -> str:
    if machine.has_sys_resource():
        return DOCKERFILE
    return DOCKERFILE.replace("chmod 0755 /usr/local/bin/*", "chmod 0755 /usr/local/sbin/runc /usr/local/bin/*")


def _preload(bare: str, name: str, images: list[str]) -> None:
    """Run containerd inside the image, import the control plane's images, and keep the result as a new image."""
    docker = engine.docker()
    container = run([docker, "run", "-d", "--privileged", "--entrypoint=sleep", bare, "infinity"]).strip()
    inside = [docker, "exec", "-i", container]
    stop = "pkill -x containerd; while pgrep -x containerd >/dev/null; do sleep 0.1; done"
    try:
        run([docker, "exec", "-d", container, "containerd"])
        run([*inside, "sh", "-c", "until ctr version >/dev/null 2>&1; do sleep 0.1; done"], timeout_s=60)
        import_into(inside, images, "--no-unpack")
        run([*inside, "sh", "-c", stop], timeout_s=60)
        changes = ['ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]', "CMD []"]
        run([docker, "commit", *(word for change in changes for word in ("--change", change)), container, name])
    finally:
        run([docker, "rm", "-f", container])
