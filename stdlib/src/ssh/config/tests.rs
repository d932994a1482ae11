//! What the configuration says, case by case.
use super::*;

fn read(text: &str, home: &Path) -> Config {
    let mut c = Config::default();
    let h = HomeDir::at(home);
    c.add(text, &home.join(".ssh/config"), &home.join(".ssh"), &h);
    c
}

fn find(text: &str, name: &str) -> Found {
    let home = HomeDir::at("/home/ada");
    read(text, home.dir()).find(&[name], Some(&home)).unwrap()
}

#[test]
fn the_first_value_counts_and_lists_add_up() {
    let text = "\
Host web web2
  User=ada
  Port 2201 # not 22
  IdentityFile \"~/.ssh/my key\"
Host w* !web2
  User other
  HostName %h.example
  IdentityFile %d/.ssh/%r-%n
Host *
  Port 22
  StrictHostKeyChecking accept-new
";
    let f = find(text, "web");
    assert_eq!((f.user.as_deref(), f.port, f.host_name.as_deref()), (Some("ada"), Some(2201), Some("web.example")));
    assert_eq!(f.identity_files, [PathBuf::from("/home/ada/.ssh/my key"), PathBuf::from("/home/ada/.ssh/ada-web")]);
    assert!(f.new_keys);
    let f = find(text, "web2");
    assert_eq!((f.user.as_deref(), f.host_name, f.identity_files.len()), (Some("ada"), None, 1));
    assert_eq!(find(text, "x"), Found { port: Some(22), new_keys: true, ..Found::default() });
}

#[test]
fn jumps_agents_and_files() {
    let text = "\
Host a
 ProxyJump ada@one:2022,two
 IdentityAgent ~/agent.sock
 UserKnownHostsFile ~/.ssh/kh1 /etc/kh2
 IdentitiesOnly yes
 ConnectTimeout 7
Host b
 ProxyJump none
 UserKnownHostsFile /dev/null
Host c
 ProxyCommand nc %h %p
";
    let f = find(text, "a");
    assert_eq!(f.proxy_jump.unwrap(), ["ada@one:2022", "two"]);
    assert_eq!(f.identity_agent.as_deref(), Some("/home/ada/agent.sock"));
    assert_eq!(f.known_hosts.unwrap(), [PathBuf::from("/home/ada/.ssh/kh1"), PathBuf::from("/etc/kh2")]);
    assert!(f.identities_only && f.connect_timeout == Some(7));
    let f = find(text, "b");
    assert_eq!((f.proxy_jump, f.known_hosts), (Some(Vec::new()), Some(Vec::new())));
    assert!(find(text, "c").proxy_command.unwrap().ends_with("config:11"));
}

#[test]
fn includes_count_under_their_block_and_match_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let ssh = dir.path().join(".ssh");
    std::fs::create_dir_all(ssh.join("conf.d")).unwrap();
    std::fs::write(ssh.join("conf.d/10.conf"), "User fromten\nHost deep\nPort 99\n").unwrap();
    std::fs::write(ssh.join("conf.d/20.conf"), "User fromtwenty\n").unwrap();
    std::fs::write(ssh.join("conf.d/.hidden.conf"), "User hidden\n").unwrap();
    let text = "Host d*\nInclude conf.d/*.conf\nMatch user ada\nPort 1\nMatch all\nHostName all.example\n";
    let c = read(text, dir.path());
    let home = HomeDir::at(dir.path());
    let f = c.find(&["deep"], Some(&home)).unwrap();
    assert_eq!((f.user.as_deref(), f.port), (Some("fromten"), Some(99)));
    assert_eq!(f.host_name.as_deref(), Some("all.example"));
    let f = c.find(&["other"], Some(&home)).unwrap();
    assert_eq!((f.user, f.port), (None, None));
    assert_eq!(c.notes.len(), 1);
    assert!(c.notes[0].contains("config:3: `Match user ada` is not supported"), "{:?}", c.notes);
}

#[test]
fn wrong_values_name_their_line() {
    let home = HomeDir::at("/home/ada");
    let e = read("Host x\nPort ssh\n", home.dir()).find(&["x"], None).unwrap_err();
    assert_eq!(e.message, "`port ssh` (/home/ada/.ssh/config:2) is not a TCP port");
    assert!(read("Host x\nPort ssh\n", home.dir()).find(&["y"], None).is_ok());
}
