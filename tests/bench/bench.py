#!/usr/bin/env python3
"""gpuhost beside its peers on real SSH hosts, in one sitting. See README.md.

    bench.py prepare                     bed image, controller root and virtual environments (once, needs network)
    bench.py run [options]               measure; one JSON line per run in OUT
    bench.py table OUT                   medians as Markdown, with ratios to ssh-batch of the same repeat

Everything lives in --dir. The bed and the peers' playbooks come from --shared.
"""
import argparse, json, os, re, shutil, statistics, subprocess, sys, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
GROUP = "/sys/fs/cgroup/cpuacct/gpuhost-bench"
PEERS = ("ansible-default", "ansible-tuned", "mitogen", "pyinfra", "ssh-steps", "ssh-batch")


class Sitting:
    """One bed, one set of tools."""

    def __init__(self, args):
        self.dir = self.shared = os.path.abspath(args.dir)
        # The Python peers run in a root of their own, which sees this folder only: bed and peers are copied into it.
        for part in ("bed", "peers"):
            if not os.path.isdir(f"{self.dir}/{part}"):
                shutil.copytree(f"{args.shared}/{part}", f"{self.dir}/{part}")
        self.bed_state = f"{self.dir}/bedstate"
        self.run_dir = f"{self.bed_state}/run"
        self.peers = f"{self.shared}/peers"
        self.gpuhost = os.path.abspath(args.gpuhost)
        os.environ.update(BED_STATE=self.bed_state, BENCH_ROOT=self.dir, BED_CGROUP=GROUP, INCTL_BIND=self.dir)
        if args.max_sessions:
            os.environ["BED_MAXSESSIONS"] = str(args.max_sessions)

    def bed(self, *words):
        done = subprocess.run([f"{self.shared}/bed/bed", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              text=True, check=True)
        return done.stdout

    def up(self, n, rtt):
        self.bed("up", str(n), "--latency", str(rtt))
        inventory = self.bed("inventory", "ini")
        with open(f"{self.run_dir}/inv.ini", "w") as f:
            f.write(inventory + f"ansible_ssh_common_args=-o UserKnownHostsFile={self.run_dir}/known_hosts\n")
        with open(f"{self.run_dir}/hosts.json", "w") as f:
            f.write(self.bed("inventory", "json"))
        with open(f"{self.run_dir}/inv.txt", "w") as f:
            f.write(self.bed("inventory", "table"))

    def hosts(self):
        return json.load(open(f"{self.run_dir}/hosts.json"))

    def command(self, tool, load, n):
        """The argument list of a tool; Python peers live in a root of their own."""
        inside = [f"{self.peers}/inctl", f"{self.dir}/ctl-root", "/usr/bin/env", "PATH=/usr/local/bin:/usr/bin:/bin",
                  "HOME=/root"]
        venv, playbook = f"{self.dir}/venv", ["-i", f"{self.run_dir}/inv.ini", f"{self.peers}/ansible/{load}.yml"]
        if tool == "gpuhost":
            state = f"{self.dir}/state-{os.getpid()}"
            subprocess.run(["rm", "-rf", state], check=True)
            os.makedirs(f"{state}/.ssh", mode=0o700)
            with open(f"{self.run_dir}/known_hosts") as src, open(f"{state}/.ssh/known_hosts", "w") as dst:
                dst.write(src.read())
            hosts = ",".join(f"{h['role']}={h['ip']}" for h in self.hosts())
            return ["env", f"HOME={state}", self.gpuhost, "run", f"{HERE}/{load}.rhai", "--json", "--state-dir", state, "--set", f"hosts={hosts}",
                    "--set", f"key=file:{self.bed_state}/key"]
        if tool == "ansible-default":
            return [*inside, f"{venv}/ansible/bin/ansible-playbook", *playbook]
        if tool == "ansible-tuned":
            return [*inside, "ANSIBLE_PIPELINING=1", f"ANSIBLE_FORKS={n}", f"{venv}/ansible/bin/ansible-playbook", *playbook]
        if tool == "mitogen":
            plugin = f"{venv}/mitogen/lib/python3.13/site-packages/ansible_mitogen/plugins/strategy"
            return [*inside, f"ANSIBLE_STRATEGY_PLUGINS={plugin}", "ANSIBLE_STRATEGY=mitogen_linear", f"ANSIBLE_FORKS={n}",
                    f"{venv}/mitogen/bin/ansible-playbook", *playbook]
        if tool == "pyinfra":
            return [*inside, f"BED_STATE={self.bed_state}", f"{venv}/pyinfra/bin/pyinfra", "-y", "--parallel", str(n),
                    f"{self.peers}/pyinfra/inventory.py", f"{self.peers}/pyinfra/{load}.py"]
        if tool in ("ssh-batch", "ssh-steps"):
            return [*inside, f"{self.peers}/ssh/run.sh", tool[4:], load, f"{self.run_dir}/inv.txt",
                    f"{self.bed_state}/key", f"{self.run_dir}/known_hosts"]
        sys.exit(f"no tool {tool}; there are gpuhost, {', '.join(PEERS)}")

    def once(self, tool, load, n, log):
        """Runs a tool and weighs it: wall, CPU of both sides, memory, bytes, packets."""
        ctl = open(f"{self.run_dir}/ctl").read().strip()
        argv = ["nsenter", "-t", ctl, "-n", "--", *self.command(tool, load, n)]
        before = cpu("ctl"), cpu("hosts"), traffic(ctl)
        watch = Memory()
        with open(log, "wb") as out:
            start = time.monotonic()
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.dir,
                                     preexec_fn=lambda: join("ctl"))
            watch.start()
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.monotonic() - start
        watch.done.set()
        watch.join()
        end_all("ctl")
        after = cpu("ctl"), cpu("hosts"), traffic(ctl)
        text = open(log, errors="replace").read()
        return dict(wall=round(wall, 3), ctl_cpu=round(after[0] - before[0], 3), host_cpu=round(after[1] - before[1], 3),
                    rss_mb=round(usage.ru_maxrss / 1024, 1), pss_mb=round(watch.peak / 1024, 1),
                    kb=round((after[2][0] - before[2][0]) / 1024, 1), packets=after[2][1] - before[2][1],
                    code=os.waitstatus_to_exitcode(status), counts=counted(tool, text), load=round(os.getloadavg()[0], 1))


def counted(tool, text):
    """What the tool itself says it changed, over all hosts."""
    if tool == "gpuhost":
        last = [l for l in text.splitlines() if '"run_finished"' in l]
        return json.loads(last[-1])["changed"] if last else None
    if tool == "pyinfra":
        found = re.search(r"Grand total\s+\d+\s+(\S+)\s+\S+\s+\S+", text)
        return None if not found else 0 if found[1] == "-" else int(found[1])
    return sum(map(int, re.findall(r"\bchanged=(\d+)", text)))


def cpu(which):
    try:
        return int(open(f"{GROUP}/{which}/cpuacct.usage").read()) / 1e9
    except OSError:
        return 0.0


def join(which):
    with open(f"{GROUP}/{which}/cgroup.procs", "w") as f:
        f.write(str(os.getpid()))


def members(which):
    try:
        return [int(p) for p in open(f"{GROUP}/{which}/cgroup.procs").read().split()]
    except OSError:
        return []


def end_all(which):
    """Ends what the tool left behind in its own group (ControlPersist masters)."""
    for _ in range(100):
        left = members(which)
        if not left:
            return
        for p in left:
            try:
                os.kill(p, 9)
            except ProcessLookupError:
                pass
        time.sleep(0.05)


def traffic(pid):
    for line in open(f"/proc/{pid}/net/dev"):
        if line.strip().startswith("eth0:"):
            f = line.split(":")[1].split()
            return int(f[0]) + int(f[8]), int(f[1]) + int(f[9])
    return 0, 0


class Memory(threading.Thread):
    """Highest sum of proportional memory over the tool's processes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.done = 0, threading.Event()

    def run(self):
        while not self.done.wait(0.1):
            total = 0
            for p in members("ctl"):
                try:
                    with open(f"/proc/{p}/smaps_rollup") as f:
                        total += sum(int(l.split()[1]) for l in f if l.startswith("Pss:"))
                except OSError:
                    pass
            self.peak = max(self.peak, total)


def prepare(args):
    s = Sitting(args)
    os.makedirs(s.dir, exist_ok=True)
    s.bed("image")
    if args.peers:
        subprocess.run([f"{s.peers}/setup.sh", f"{s.dir}/ctl-root", f"{s.dir}/venv"], check=True, cwd=s.dir)


def run(args):
    s = Sitting(args)
    os.makedirs(f"{s.dir}/work", exist_ok=True)
    tools = args.tools.split(",")
    for n in map(int, args.hosts.split(",")):
        for rtt in map(int, args.rtt.split(",")):
            for load in args.workloads.split(","):
                s.up(n, rtt)
                try:
                    for repeat in range(args.repeats):
                        for i, tool in enumerate(tools):
                            if repeat or i:
                                s.bed("reset", "all")
                            for phase in ("first", "second"):
                                log = f"{s.dir}/work/{tool}-{load}-{n}-{rtt}-{phase}.log"
                                row = s.once(tool, load, n, log)
                                row = dict(n=n, rtt=rtt, workload=load, tool=tool, phase=phase, repeat=repeat, **row)
                                with open(args.out, "a") as f:
                                    f.write(json.dumps(row) + "\n")
                                print(time.strftime("%H:%M:%S"), json.dumps(row), flush=True)
                            with open(f"{s.dir}/work/effects-{tool}-{load}-{n}-{rtt}.txt", "w") as f:
                                f.write(s.bed("effects", str(n)))
                finally:
                    end_all("ctl")
                    s.bed("down")


def table(args):
    rows = [json.loads(l) for l in open(args.out)]
    cells = sorted({(r["workload"], r["n"], r["rtt"]) for r in rows})
    for load, n, rtt in cells:
        print(f"\n### {load}, {n} hosts, {rtt} ms\n")
        print("| tool | wall s, first / no change | x ssh-batch | controller CPU s | per host | hosts' CPU s | memory MiB | KB | packets | changed |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        of = lambda tool, phase: {r["repeat"]: r for r in rows
                                  if (r["workload"], r["n"], r["rtt"], r["tool"], r["phase"]) == (load, n, rtt, tool, phase)}
        for tool in dict.fromkeys(r["tool"] for r in rows):
            first, second = of(tool, "first"), of(tool, "second")
            if not first:
                continue
            mid = lambda d, k: statistics.median(r[k] for r in d.values() if r[k] is not None) if d else float("nan")
            both = lambda k, form: " / ".join(form % mid(d, k) for d in (first, second))

            def ratio(d, phase):
                base = of("ssh-batch", phase)
                pairs = [r["wall"] / base[i]["wall"] for i, r in d.items() if i in base]
                return "%.2f" % statistics.median(pairs) if pairs else "-"

            per_host = " / ".join("%.3f" % (mid(d, "ctl_cpu") / n) for d in (first, second))
            print(f"| {tool} | {both('wall', '%.2f')} | {ratio(first, 'first')} / {ratio(second, 'second')} | "
                  f"{both('ctl_cpu', '%.2f')} | {per_host} | {both('host_cpu', '%.2f')} | {both('rss_mb', '%.0f')} | "
                  f"{both('kb', '%.0f')} | {both('packets', '%.0f')} | {both('counts', '%.0f')} |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("prepare", "run", "table"))
    p.add_argument("out", nargs="?", default="bench.jsonl", help="results, one JSON line per run")
    p.add_argument("--dir", default=os.environ.get("BENCH_DIR", "bench-work"), help="where everything lives")
    p.add_argument("--shared", default=f"{HERE}/../../../shared/bench", help="the bed and the peers' own files")
    p.add_argument("--gpuhost", default=f"{HERE}/../../target/release/gpuhost", help="the program")
    p.add_argument("--hosts", default="1,7,20,50")
    p.add_argument("--rtt", default="0,20", help="round trip in milliseconds")
    p.add_argument("--workloads", default="prereq,tasks50")
    p.add_argument("--tools", default="gpuhost,ssh-batch,pyinfra,ansible-tuned")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--max-sessions", type=int, default=0, help="sshd's MaxSessions on the bed (prepare)")
    p.add_argument("--no-peers", dest="peers", action="store_false", help="prepare without the Python peers")
    args = p.parse_args()
    dict(prepare=prepare, run=run, table=table)[args.what](args)


main()
