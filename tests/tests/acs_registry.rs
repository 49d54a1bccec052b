//! The CPEs of an ACS: provisioned by an operator, kept over everything, shared among servers.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use tr111::control::{
    Client, ClientError,
    message::{NewCpe, Refusal, Reply, Request},
};
use tr111_tests::{
    acs,
    agent::{Agent, Files, SOON},
    cpe::{PASSWORD, STUN_PASSWORD, USERNAME},
    lab::{GATEWAY, Lab},
    process::{output_with_input, text},
    redis::Redis,
    wait::wait_for,
};

/// `STUNUsername` of each CPE.
fn names(acs: &Agent<'_>) -> Result<Vec<String>> {
    let list = acs.json(&["cpe", "list"])?;
    let cpes = list["cpes"].as_array().context("no list")?;
    Ok(cpes.iter().filter_map(|cpe| Some(cpe["stun_username"].as_str()?.to_owned())).collect())
}

/// What a command says to stderr, which fails with status 1.
fn refused(acs: &Agent<'_>, arguments: &[&str]) -> Result<String> {
    let output = acs.ask(arguments)?;
    ensure!(output.status.code() == Some(1), "{arguments:?}: {:?}", output.status);
    Ok(text(&output.stderr))
}

fn write(directory: &Path, name: &str, content: &str) -> Result<String> {
    let path = directory.join(name);
    fs::write(&path, content)?;
    Ok(path.display().to_string())
}

/// STUN-21: one client imports at a time, in bounded memory, and the registry has a bound; what does not fit leaves nothing.
#[test]
fn imports_and_the_registry_have_bounds() -> Result<()> {
    let lab = Lab::new()?;
    let files = Files::new(lab.path(), "acs")?;
    let control = files.control();
    let acs = acs::start_with(&lab.gateway, files, lab.path(), "max_cpes = 20000")?;
    let rows = |name: &str, count| {
        let rows: Vec<_> = (0..count).map(|number| format!("{name}{number:06},secret,user,key\n")).collect();
        let headings = "stun_username,stun_password,connection_request_username,connection_request_password";
        write(lab.path(), &format!("{name}.csv"), &format!("{headings}\n{}", rows.concat()))
    };
    acs.print(&["cpe", "import", &rows("FIRST", 15_000)?])?;
    for (name, count, line) in [("MORE", 5_001, 5_002), ("MUCH", 20_001, 20_002)] {
        let file = rows(name, count)?;
        for arguments in [&["cpe", "import", &file][..], &["cpe", "import", "--upsert", &file]] {
            let error = refused(&acs, arguments)?;
            ensure!(error.contains("acs.max_cpes") && error.contains(&format!("line {line}: ")), "{error}");
            assert_eq!(names(&acs)?.len(), 15_000);
        }
    }
    acs.print(&["cpe", "import", "--upsert", &rows("FIRST", 20_000)?])?;
    ensure!(refused(&acs, &["cpe", "import", &rows("ONE", 1)?])?.contains("line 2: "));
    acs.print(&["tune", "acs.max_cpes=20001"])?;
    acs.print(&["cpe", "import", &rows("ONE", 1)?])?;

    // A client that has some on the way keeps others from having some, and gives way when it goes.
    let part = |name: &str, more| Request::AddCpes {
        cpes: vec![NewCpe { stun_username: name.to_owned(), ..NewCpe::default() }],
        more,
        upsert: true,
    };
    let [mut one, mut other] = [Client::connect(&control)?, Client::connect(&control)?];
    assert_eq!(one.ask(&part("FIRST000001", true))?, Reply::Done);
    let busy = other.ask(&part("FIRST000002", true));
    ensure!(matches!(busy, Err(ClientError::Refused { refusal: Refusal::Busy, .. })), "{busy:?}");
    assert_eq!(other.ask(&part("FIRST000002", false))?, Reply::Done, "a message by itself waits for nobody");
    drop(one);
    wait_for("the turn", SOON, || Ok(other.ask(&part("FIRST000002", true)).ok()))?;
    assert_eq!(other.ask(&part("FIRST000003", false))?, Reply::Done);
    assert_eq!(names(&acs)?.len(), 20_001);
    Ok(())
}

/// STUN-20, STUN-21: a CPE is added once, with passwords from files, which nothing shows.
#[test]
fn a_cpe_is_provisioned_once_and_its_passwords_are_shown_to_nobody() -> Result<()> {
    let lab = Lab::new()?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", "")?;
    acs::add_cpe(&acs, lab.path())?;
    let again = acs::add_cpe(&acs, lab.path()).err().context("added twice")?.to_string();
    ensure!(again.contains("another CPE has this STUNUsername"), "{again}");
    assert_eq!(names(&acs)?, [USERNAME]);
    acs.print(&["cpe", "verify", USERNAME])?;
    assert_eq!(acs.json(&["cpe", "list"])?["cpes"][0]["must_verify"], true);
    for arguments in
        [&["cpe", "list"][..], &["cpe", "list", "--json"], &["cpe", "export"], &["cpe", "lint"], &["status"]]
    {
        let output = acs.ask(arguments)?;
        let shown = [text(&output.stdout), text(&output.stderr), acs.log()].concat();
        ensure!(!shown.contains(PASSWORD) && !shown.contains(STUN_PASSWORD), "{arguments:?}: {shown}");
    }
    acs.print(&["cpe", "remove", USERNAME])?;
    ensure!(refused(&acs, &["cpe", "remove", USERNAME])?.contains("no CPE has this STUNUsername"));
    ensure!(names(&acs)?.is_empty());
    Ok(())
}

/// STUN-21: a file is imported as a whole or not at all, and the line that is wrong is named. What one ACS exports with its
/// passwords, for nobody but the owner of the file, another one imports.
#[test]
fn cpes_come_from_files_and_go_to_files_as_a_whole() -> Result<()> {
    const HEADINGS: &str = "stun_username,stun_password,connection_request_username,connection_request_password";
    let lab = Lab::new()?;
    let one = acs::start(&lab.gateway, lab.path(), "one", "")?;
    let rows = |count: usize| {
        (0..count).map(|number| format!("CPE{number:05},\"secret, {number}\",user{number},key{number}\n"))
    };
    let good = format!("{HEADINGS}\n{}", rows(1_000).collect::<String>());
    for (name, wrong, words) in [
        ("double.csv", format!("{good}CPE00007,a,b,c\n"), &["line 1002", "CPE00007", "line 9"][..]),
        ("long.csv", good.replace("user4,", &format!("{},", "u".repeat(257))), &["line 6", "256 bytes"]),
        ("short.csv", good.replace(",key9\n", "\n"), &["line 11", "3 fields"]),
        (
            "public.csv",
            "stun_username,connection_request_username\nCPE,user\n".to_owned(),
            &["line 2", "stun_password"],
        ),
        ("cut.json", "{\"cpes\": [\n{\"stun_username\": \"CPE\"}]}".to_owned(), &["line 2", "stun_password"]),
    ] {
        let error = refused(&one, &["cpe", "import", &write(lab.path(), name, &wrong)?])?;
        ensure!(words.iter().all(|word| error.contains(word)) && error.contains("nothing was imported"), "{error}");
        ensure!(!error.contains("secret") && !error.contains("key"), "{error}");
        ensure!(names(&one)?.is_empty());
    }
    // From a pipe, in several messages.
    let imported = output_with_input(&mut one.command(&["cpe", "import", "-"])?, good.as_bytes())?;
    ensure!(imported.status.success(), "{}", text(&imported.stderr));
    assert_eq!(names(&one)?.len(), 1_000);
    let last = write(lab.path(), "last.csv", &format!("{HEADINGS}\nnew,a,b,c\nCPE00999,a,b,c\n"))?;
    let error = refused(&one, &["cpe", "import", &last])?;
    ensure!(error.contains("line 3") && error.contains("another CPE"), "{error}");
    assert_eq!(names(&one)?.len(), 1_000);

    for format in ["csv", "json"] {
        let path = lab.path().join(format!("all.{format}"));
        let argument = path.display().to_string();
        one.print(&["cpe", "export", "--with-secrets", &argument])?;
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        ensure!(refused(&one, &["cpe", "export", "--with-secrets", &argument])?.contains("exists"));
        let other = acs::start(&lab.lan, lab.path(), format, "")?;
        other.print(&["cpe", "import", &argument])?;
        assert_eq!(names(&other)?.len(), 1_000);
        let back = lab.path().join(format!("back.{format}"));
        other.print(&["cpe", "export", "--with-secrets", &back.display().to_string()])?;
        let sorted = |path: &Path| -> Result<Vec<String>> {
            let mut lines: Vec<_> = fs::read_to_string(path)?.lines().map(str::to_owned).collect();
            lines.sort();
            Ok(lines)
        };
        assert_eq!(sorted(&back)?, sorted(&path)?);
    }
    Ok(())
}

/// STUN-22, T-37: the linter finds what is weak, shared or hard to send, and is content with what `generate` makes.
#[test]
fn the_linter_finds_what_is_weak_or_shared() -> Result<()> {
    let lab = Lab::new()?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", "")?;
    let mut keys = Vec::new();
    for name in ["one.key", "other.key"] {
        let path = lab.path().join(name);
        acs.print(&["cpe", "generate", &path.display().to_string()])?;
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        keys.push(path.display().to_string());
    }
    let add = |name: &str, stun: &str| {
        let arguments = ["cpe", "add", "--stun-username", name, "--stun-password-file", stun];
        let user = ["--connection-request-username", "user", "--connection-request-password-file", &keys[1]];
        acs.print(&[&arguments[..], &user].concat()).map(drop)
    };
    add("CPE00001", &keys[0])?;
    acs.print(&["cpe", "lint"])?;
    for (name, is_warned) in [("Home%20Box+1", false), ("Home Box 1", true)] {
        let arguments = ["cpe", "add", "--stun-username", "CPE00009", "--connection-request-username", name];
        let output = acs.ask(&[&arguments[..], &["--connection-request-password-file", &keys[1]]].concat())?;
        let warning = text(&output.stderr);
        ensure!(output.status.success() && warning.contains("' '") == is_warned, "{name}: {warning}");
        acs.print(&["cpe", "remove", "CPE00009"])?;
    }
    add("CPE0002", &keys[0])?;
    add("CPE0003 ", &write(lab.path(), "weak", "password1234")?)?;
    ensure!(refused(&acs, &["cpe", "lint"])?.contains("5 findings"));
    let output = acs.ask(&["cpe", "lint", "--json"])?;
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let findings = json["findings"].as_array().context("no findings")?.iter();
    let mut found: Vec<_> = findings
        .map(|finding| [&finding["stun_username"], &finding["finding"]].map(|text| text.as_str().unwrap_or_default()))
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ["CPE00001", "duplicate_stun_password"],
            ["CPE0002", "duplicate_stun_password"],
            ["CPE0002", "username_length"],
            ["CPE0003 ", "username_blank"],
            ["CPE0003 ", "weak_stun_password"],
        ]
    );
    Ok(())
}

/// What was told to be done is there after a SIGKILL.
#[test]
fn a_killed_acs_forgets_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", "")?;
    acs::add_cpe(&acs, lab.path())?;
    acs.print(&["cpe", "verify", USERNAME])?;
    let files = acs.kill()?;
    let acs = acs::start_with(&lab.gateway, files, lab.path(), "")?;
    assert_eq!(names(&acs)?, [USERNAME]);
    assert_eq!(acs.json(&["cpe", "list"])?["cpes"][0]["must_verify"], true);
    Ok(())
}

/// STUN-21: two servers on one Redis know each other's CPEs, say when it is away, and go on when it is back.
#[test]
fn two_servers_share_a_redis() -> Result<()> {
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.0.2/16 dev eth0")?;
    let mut redis = Redis::start_in(&lab.gateway, GATEWAY, Some("correct-horse"))?;
    let password = write(lab.path(), "redis.key", "correct-horse\n")?;
    let keys = format!("registry = \"{}\"\nregistry_password_file = \"{password}\"", redis.url());
    let one = acs::start(&lab.gateway, lab.path(), "one", &keys)?;
    let other = acs::start(&lab.lan, lab.path(), "other", &keys)?;
    acs::add_cpe(&one, lab.path())?;
    wait_for("the CPE at the other server", SOON, || Ok(Some(names(&other)?).filter(|names| names == &[USERNAME])))?;
    ensure!(acs::add_cpe(&other, lab.path()).is_err(), "added twice");

    redis.kill()?;
    other.print(&["cpe", "list"])?;
    let add = |name: &str| acs::add(&other, lab.path(), name, None);
    let error = add("CPE00002").err().context("kept nowhere")?.to_string();
    ensure!(error.contains("redis://10.111.0.1"), "{error}");
    let failure = other.json(&["status"])?["acs"]["registry_failure"].clone();
    ensure!(failure.as_str().is_some_and(|failure| failure.contains("redis://")), "{failure}");
    other.wait_for_metrics("tr111_registry_up 0", |metrics| metrics.value("tr111_registry_up") < 0.5)?;
    redis.resume()?;
    wait_for("a registry that works", SOON * 3, || Ok(add("CPE00002").ok()))?;
    other.wait_for_metrics("tr111_registry_up 1", |metrics| metrics.value("tr111_registry_up") > 0.5)?;
    let both = |names: &Vec<String>| names.len() == 2;
    wait_for("both CPEs at the first server", SOON * 3, || Ok(Some(names(&one)?).filter(both)))?;
    for acs in [&one, &other] {
        ensure!(!acs.log().contains("correct-horse"), "{}", acs.log());
    }
    Ok(())
}

/// A record of a Redis that cannot be read is an alarm, and everything else goes on, also after a restart; it may be removed.
#[test]
fn a_record_that_cannot_be_read_is_an_alarm() -> Result<()> {
    let lab = Lab::new()?;
    let redis = Redis::start_in(&lab.gateway, GATEWAY, Some("correct-horse"))?;
    let password = write(lab.path(), "redis.key", "correct-horse\n")?;
    let keys = format!("registry = \"{}\"\nregistry_password_file = \"{password}\"", redis.url());
    let acs = acs::start(&lab.gateway, lab.path(), "acs", &keys)?;
    for name in ["CPE00001", "CPE00002"] {
        acs::add(&acs, lab.path(), name, None)?;
    }
    let files = acs.kill()?;
    redis.cli(&["HSET", "{tr111}:cpes", "CPE00001", "of another version"])?;
    redis.cli(&["HSET", "{tr111}:associations", "no device", "xx"])?;
    let acs = acs::start_with(&lab.gateway, files, lab.path(), &keys)?;
    assert_eq!((names(&acs)?, acs.fetch("/readyz")?.0), (vec!["CPE00002".to_owned()], 200));
    assert_eq!(acs.metrics()?.sum("tr111_acs_alarms_total", &[("alarm", "unreadable_record")]), 2);
    assert_eq!(acs.json(&["status"])?["acs"]["unreadable_records"], 1);
    ensure!(acs.print(&["status"])?.contains("1 records CANNOT BE READ"));
    ensure!(acs.log().contains("CPE00001"), "{}", acs.log());
    ensure!(acs::add(&acs, lab.path(), "CPE00001", None).is_err(), "written over");
    acs.print(&["cpe", "remove", "CPE00001"])?;
    acs::add(&acs, lab.path(), "CPE00001", None)?;
    assert_eq!(acs.json(&["status"])?["acs"]["unreadable_records"], 0);
    Ok(())
}

/// With a key, passwords are encrypted on the disk; without it the CPEs are not taken for nobody.
#[test]
fn passwords_are_encrypted_on_the_disk() -> Result<()> {
    let lab = Lab::new()?;
    let keys = |digits: &str| -> Result<String> {
        let file = write(lab.path(), "registry.key", &format!("{digits}\n"))?;
        Ok(format!("registry_encryption_key_file = \"{file}\""))
    };
    let good = keys(&"0123456789abcdef".repeat(4))?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", &good)?;
    acs::add_cpe(&acs, lab.path())?;
    let files = acs.kill()?;
    let content = fs::read(files.state().join("registry.redb"))?;
    let has = |text: &str| content.windows(text.len()).any(|part| part == text.as_bytes());
    ensure!(has(USERNAME) && !has(PASSWORD) && !has(STUN_PASSWORD));

    let acs = acs::start_with(&lab.gateway, files, lab.path(), "")?;
    assert_eq!(acs.fetch("/readyz")?.0, 503);
    ensure!(refused(&acs, &["cpe", "list"])?.contains("registry_encryption_key_file"));
    let acs = acs::start_with(&lab.gateway, acs.kill()?, lab.path(), &good)?;
    assert_eq!(names(&acs)?, [USERNAME]);
    let exported = lab.path().join("export.csv");
    acs.print(&["cpe", "export", "--with-secrets", &exported.display().to_string()])?;
    ensure!(fs::read_to_string(exported)?.contains(STUN_PASSWORD));

    let files = acs.kill()?;
    let error = acs::start_with(&lab.gateway, files, lab.path(), &keys("a secret")?).err().context("started")?;
    let error = format!("{error:#}");
    ensure!(error.contains("64 hexadecimal digits") && !error.contains("a secret"), "{error}");
    Ok(())
}

/// A password in the URL would be in every listing, so it is refused, and not repeated.
#[test]
fn a_password_in_the_url_of_a_redis_is_refused() -> Result<()> {
    let lab = Lab::new()?;
    let config = write(lab.path(), "acs.toml", "[acs]\nregistry = \"redis://:correct-horse@127.0.0.1:6379/0\"\n")?;
    let mut command: Command = lab.gateway.command(tr111_tests::agent::binary()?);
    let output = tr111_tests::process::output(command.args(["run", "acs", "--config", &config]))?;
    let error = text(&output.stderr);
    ensure!(output.status.code() == Some(2) && error.contains("registry_password_file"), "{error}");
    ensure!(!error.contains("correct-horse"), "{error}");
    Ok(())
}
