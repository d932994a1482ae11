//! Ops on the hypervisor, on machines and on this one.
use super::Start::{Bare, Less, Machines};
use super::Then::{Asks, Continues, Converges, Refuses};
use super::{Row, Start, Then};

const fn row(op: &'static str, text: &'static str, then: Then) -> Row {
    Row::new(Machines, op, text, then)
}

const fn on(start: Start, op: &'static str, text: &'static str, then: Then) -> Row {
    Row::new(start, op, text, then)
}

/// The recipe's way to machine `muscle-b`.
macro_rules! vm {
    ($text:literal) => {
        concat!("let vm = pve.get_vm(\"muscle-b\");\n", $text)
    };
}
/// And to the shell of `shelf`, which may be booting.
macro_rules! shelf {
    ($text:literal) => {
        concat!("let vm = pve.get_vm(\"shelf\");\nvm.wait_ready(10.minutes);\nlet shelf = vm.ssh();\n", $text)
    };
}

const ONCE: &str = "once(\"announce\", || print(\"it is up\"));\n";
const GRANT: &str = "pve.ensure_grant(\"/storage/local\", #{ role: \"Looker\", token: \"gpuhost@pve!second\" });\n";
const TOKEN: &str = "pve.ensure_token(\"gpuhost@pve!second\", #{ keep_as: \"second_token\" });\n";
const MAPPING: &str = "pve.ensure_pci_mapping(\"gpuhost-a100\", #{ device: \"10de:20f1\", count: 8 });\n";
const UPLOAD: &str = "write_file(\"seed.iso\", \"an image\");\npve.get_storage(\"local\").upload(\"seed.iso\", #{ content: \"iso\" });\n";
const BOOTS: &str = shelf!("print(shelf.read(\"journalctl --list-boots | wc -l\").stdout);\n");

pub(super) const ROWS: &[Row] = &[
    on(Bare, "proxmox.ensure_pool", "pve.ensure_pool();\n", Converges),
    on(Bare, "proxmox.remove_pool", "pve.remove_pool();\n", Continues).before("pve.ensure_pool();\n"),
    on(Bare, "proxmox.ensure_template", "pve.ensure_template(site().template);\n", Continues),
    on(Bare, "proxmox.ensure_role", "pve.ensure_role(\"Looker\", [\"VM.Audit\"]);\n", Converges),
    on(Bare, "proxmox.ensure_token", TOKEN, Converges),
    on(Bare, "proxmox.remove_token", "pve.remove_token(\"gpuhost@pve!second\");\n", Continues).before(TOKEN),
    on(Bare, "proxmox.ensure_grant", GRANT, Converges).before(
        "pve.ensure_role(\"Looker\", [\"VM.Audit\"]);\npve.ensure_token(\"gpuhost@pve!second\", #{ keep_as: \"second_token\" });\n",
    ),
    on(Bare, "proxmox.ensure_pci_mapping", MAPPING, Converges),
    on(Bare, "proxmox.remove_pci_mapping", "pve.remove_pci_mapping(\"gpuhost-a100\");\n", Continues).before(MAPPING),
    on(Bare, "proxmox.upload", UPLOAD, Converges),
    on(Bare, "proxmox.remove_content", "pve.remove_content();\n", Continues).before(UPLOAD),
    on(
        Bare,
        "proxmox.download_url",
        "let t = site().template;\npve.get_storage(\"local\").download_url(t.image_url, #{ content: \"import\", sha256: t.image_sha256 });\n",
        Converges,
    ),
    on(
        Bare,
        "proxmox.begin_once",
        ONCE,
        Refuses("begun and has not ended", "forget_once(\"announce\");\n"),
    ),
    on(Bare, "proxmox.end_once", ONCE, Converges),
    on(Bare, "proxmox.forget_once", "forget_once(\"announce\");\n", Converges).before(ONCE),
    on(Bare, "file.write_file", "write_file(\"notes.txt\", \"it is up\\n\");\n", Converges)
        .shows("print(read_file(\"notes.txt\"));\n"),
    row(
        "proxmox.ensure_vm",
        "pve.ensure_vm(site().get_node(\"muscle-a\"), #{ template: pve.ensure_template(site().template) });\n",
        Continues,
    ),
    row("proxmox.remove_vm", "for vm in pve.list_owned() { if vm.name == \"muscle-b\" { pve.remove_vm(vm); } }\n", Continues),
    row("proxmox.remove_template", "pve.remove_template(site().template);\n", Continues),
    on(
        Less,
        "proxmox.convert_to_template",
        vm!("if vm.get_status().status == \"running\" { vm.stop(); }\nvm.convert_to_template();\n"),
        Continues,
    ),
    row("proxmox.start", vm!("vm.start();\n"), Continues).before(vm!("vm.stop();\n")),
    row("proxmox.stop", vm!("vm.stop();\n"), Continues),
    row("proxmox.shutdown", vm!("vm.shutdown();\n"), Continues),
    row("proxmox.suspend", vm!("vm.suspend();\n"), Continues),
    row("proxmox.resume", vm!("vm.resume();\n"), Continues).before(vm!("vm.suspend();\n")),
    row("proxmox.reboot", vm!("vm.reboot();\n"), Continues).always(),
    row("proxmox.reset", vm!("vm.reset();\n"), Continues).always(),
    row("proxmox.ensure_snapshot", vm!("vm.ensure_snapshot(\"clean\");\n"), Continues),
    row("proxmox.remove_snapshot", vm!("vm.remove_snapshot(\"clean\");\n"), Continues)
        .before(vm!("vm.ensure_snapshot(\"clean\");\n")),
    row("proxmox.rollback", vm!("vm.rollback(\"clean\");\n"), Continues)
        .before(vm!("vm.ensure_snapshot(\"clean\");\n"))
        .always(),
    row("proxmox.migrate", vm!("vm.migrate(\"pve2\", #{ with_disks: true });\n"), Continues),
    row("proxmox.move_disk", vm!("vm.move_disk(\"scsi0\", \"tank\");\n"), Continues),
    row("proxmox.backup", vm!("vm.backup(\"local\", #{ mode: \"stop\" });\n"), Asks).always(),
    row(
        "proxmox.restore",
        vm!(
            "vm.restore(pve.get_storage(\"local\").list_content(#{ content: \"backup\", vmid: vm.vmid })[0].volid);\n"
        ),
        Continues,
    )
    .before(vm!("vm.backup(\"local\", #{ mode: \"stop\" });\nvm.stop();\n"))
    .always(),
    row("proxmox.agent_run", vm!("vm.agent_run([\"touch\", \"/root/asked\"]);\n"), Asks).always(),
    row("proxmox.ensure_ssh_key", vm!("vm.ensure_ssh_key();\n"), Converges)
        .before(vm!("vm.wait_agent(10.minutes);\nvm.agent_run([\"rm\", \"/home/ops/.ssh/authorized_keys\"]);\n"))
        .shows(vm!("print(vm.read_file(\"/home/ops/.ssh/authorized_keys\"));\n")),
    row("proxmox.remove_former_ssh_keys", vm!("vm.remove_former_ssh_keys();\n"), Converges)
        .before(vm!("vm.wait_agent(10.minutes);\nvm.agent_run([\"sh\", \"-c\", \"echo 'ssh-ed25519 AAAA gpuhost' >>/home/ops/.ssh/authorized_keys\"]);\n"))
        .shows(vm!("print(vm.read_file(\"/home/ops/.ssh/authorized_keys\"));\n")),
    row("proxmox.write_file", vm!("vm.write_file(\"/etc/motd\", \"keep calm\\n\");\n"), Converges)
        .shows(vm!("print(vm.read_file(\"/etc/motd\"));\n")),
    row("ssh.run", shelf!("shelf.run(\"touch /root/asked\");\n"), Asks).always(),
    row("ssh.script", shelf!("shelf.script(\"touch /root/asked\\ntouch /root/again\\n\");\n"), Asks).always(),
    row("ssh.write_file", shelf!("shelf.write_file(\"/etc/motd\", \"keep calm\\n\", #{ mode: \"0600\" });\n"), Converges)
        .shows(shelf!("print(shelf.read(\"stat -c '%a %U' /etc/motd; cat /etc/motd\").stdout);\n")),
    row("ssh.copy_to", shelf!("shelf.copy_to(\"app.conf\", \"/etc/app.conf\");\n"), Converges)
        .before("write_file(\"app.conf\", \"a = 1\\n\");\n")
        .shows(shelf!("print(shelf.read_file(\"/etc/app.conf\"));\n")),
    row("ssh.copy_from", shelf!("shelf.copy_from(\"/etc/os-release\", \"os-release\");\n"), Converges)
        .shows("print(read_file(\"os-release\"));\n"),
    row(
        "ssh.ensure",
        shelf!(
            "shelf.ensure(#{ packages: [\"nfs-common\"], sysctl: #{ \"vm.max_map_count\": 262144 }, files: #{ \"/etc/motd\": \"hello\\n\" } });\n"
        ),
        Converges,
    )
    .shows(shelf!("print(shelf.read(\"cat /etc/motd; sysctl vm.max_map_count; dpkg -l nfs-common\").stdout);\n")),
    row("ssh.restart_service", shelf!("shelf.restart_service(\"ssh\");\n"), Converges).always(),
    row("ssh.reboot_and_wait", shelf!("shelf.reboot_and_wait(10.minutes);\n"), Continues).always().shows(BOOTS),
    row(
        "nfs.ensure_server",
        "nfs::ensure_server(pve.get_vm(\"shelf\").ssh(), #{ device: site().data_device(\"shelf\"), path: \"/export/k8s\" });\n",
        Converges,
    )
    .shows(shelf!("print(shelf.read(\"systemctl is-active nfs-kernel-server; findmnt -n -o FSTYPE /export/k8s\").stdout);\n")),
    row(
        "nfs.ensure_export",
        "nfs::ensure_export(pve.get_vm(\"shelf\").ssh(), \"/export/k8s\", #{ clients: site().node_ips() });\n",
        Converges,
    )
    .before(
        "nfs::ensure_server(pve.get_vm(\"shelf\").ssh(), #{ device: site().data_device(\"shelf\"), path: \"/export/k8s\" });\n",
    )
    .shows(shelf!("print(shelf.read(\"cat /etc/exports.d/*\").stdout);\n")),
];
