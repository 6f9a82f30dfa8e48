//! Tests of the configuration: what the file and the environment mean together, and what is refused.

use super::*;
use crate::storage::Location;

const PATH: &str = "/etc/pitr.toml";

fn config(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = Environment::from_pairs(environment.iter().copied());
    Ok(Config { file: file::parse(Path::new(PATH), text)?, environment, options: BTreeMap::new() })
}

/// A mistake in the file is refused with its file and line, never passed over.
#[test]
fn mistakes_in_the_file() {
    let rows = [
        (
            "[repository]\npath = \"/r\"\ncompresion = \"lz4\"",
            "unknown name \"compresion\" in [repository] at /etc/pitr.toml:3",
        ),
        ("[cluster.a]\n\ncompresion = \"lz4\"", "unknown name \"compresion\" in [cluster.a] at /etc/pitr.toml:3"),
        ("[defaults]\nconninfo = \"x\"", "unknown name \"conninfo\" in [defaults] at /etc/pitr.toml:2"),
        ("[clusters.a]\n", "unknown name \"clusters\" in the file at /etc/pitr.toml:1"),
        ("\n[cluster.A]\n", "setting \"cluster\" cannot be \"A\" (/etc/pitr.toml:2)"),
        ("[cluster]\na = 1", "\"a\" at /etc/pitr.toml:2 cannot be such a number"),
        ("[cluster.a]\nlook_ahead = 1.5", "\"look_ahead\" at /etc/pitr.toml:2 cannot be a number with a point"),
        ("[cluster.a]\nspool = [\"/a\"]", "\"spool\" at /etc/pitr.toml:2 cannot be a list"),
    ];
    for (text, message) in rows {
        assert_eq!(config(text, &[]).expect_err(text).to_string(), message);
    }
    let error = config("[cluster.a]\nx = \n", &[]).expect_err("no TOML");
    assert!(matches!(error, ConfigError::Syntax { line: 2, .. }), "{error}");
}

/// A value that its setting does not allow is refused, and the message says where it stands, environment included.
#[test]
fn mistakes_in_values() {
    let rows = [
        ("compression", "gzip"),
        ("compression", "zstd:20"),
        ("compression", "lz4:1"),
        ("spool", "spool"),
        ("spool", "/a/../b"),
        ("push_timeout", "60"),
        ("push_timeout", "0s"),
        ("fetch_timeout", "8d"),
        ("on_unreachable", "go on"),
        ("look_ahead", "65"),
        ("jobs", "-1"),
        ("system_identifier", "abc"),
        ("repository", "relative"),
    ];
    for (name, value) in rows {
        let base = if name == "repository" { "" } else { "[repository]\npath = \"/r\"\n" };
        let text = format!("{base}[cluster.a]\n{name} = \"{value}\"\n");
        let error = config(&text, &[]).and_then(|config| config.select(None, None)).expect_err(&text);
        let line = text.lines().count();
        assert_eq!(error.to_string(), format!("setting \"{name}\" cannot be \"{value}\" (/etc/pitr.toml:{line})"));

        let variable = format!("PITR_{}", name.to_ascii_uppercase());
        let good =
            config("[repository]\npath = \"/r\"\n[cluster.a]\n", &[(&variable, value)]).expect("the file is right");
        let error = good.select(None, None).expect_err(&variable);
        assert_eq!(
            error.to_string(),
            format!("setting \"{name}\" cannot be \"{value}\" (environment variable {variable})")
        );
    }
}

/// Environment before the cluster's table before `[defaults]` before the built-in value, and the origin is told.
#[test]
fn precedence() {
    let text = "[repository]\npath = \"/r\"\n[defaults]\ncompression = \"zstd:3\"\nlook_ahead = 2\n[cluster.a]\ncompression = \"zstd:5\"\n";
    let cluster = config(text, &[("PITR_JOBS", "3"), ("PITR_SPOOL", "")]).expect(text).select(None, None).expect(text);
    assert_eq!((cluster.compression, cluster.look_ahead, cluster.jobs), (Compression::Zstd(5), 2, 3));
    assert_eq!(cluster.spool, Path::new("/var/spool/pitr"));
    assert_eq!(cluster.repository.directory(), Some(Path::new("/r")));
    for (name, origin) in [
        ("compression", "/etc/pitr.toml:7"),
        ("look_ahead", "/etc/pitr.toml:5"),
        ("repository", "/etc/pitr.toml:2"),
        ("jobs", "environment variable PITR_JOBS"),
        ("spool", "default"),
    ] {
        assert_eq!(cluster.origin(name).to_string(), origin);
    }
}

/// An option of the command line wins over everything else.
#[test]
fn options() {
    let mut config =
        config("[repository]\npath = \"/r\"\n[cluster.a]\n", &[("PITR_REPOSITORY", "/e")]).expect("a file");
    config.set_option("repository", "--repository", "/o");
    let cluster = config.select(None, None).expect("a cluster");
    assert_eq!(cluster.repository.directory(), Some(Path::new("/o")));
    assert_eq!(cluster.origin("repository").to_string(), "option --repository");
}

/// Without any file the environment is enough, and nothing else is.
#[test]
fn environment_alone() {
    let environment = [("PITR_REPOSITORY", "/r"), ("PITR_CLUSTER", "main"), ("PITR_COMPRESION", "lz4")];
    let without_file = |environment| Config { file: ConfigFile::default(), environment, options: BTreeMap::new() };
    let config = without_file(Environment::from_pairs(environment));
    let cluster = config.select(None, Some(SystemIdentifier(1))).expect("enough");
    assert_eq!((cluster.name.as_str(), cluster.repository.directory()), ("main", Some(Path::new("/r"))));
    assert_eq!(config.unknown_variables(), ["PITR_COMPRESION"]);

    let nothing = without_file(Environment::default());
    assert!(matches!(nothing.select(None, None), Err(ConfigError::NoCluster { .. })));
    assert!(matches!(nothing.select(Some(&"a".parse().expect("a name")), None), Err(ConfigError::NoRepository { .. })));
}

/// Which cluster: by name, by system identifier, the only one; anything doubtful is refused.
#[test]
fn which_cluster() {
    let text = "[repository]\npath = \"/r\"\n[cluster.a]\nsystem_identifier = 11\n[cluster.b]\nsystem_identifier = \"12\"\n[cluster.c]\n";
    let several = config(text, &[]).expect(text);
    let by_identifier = |number| several.select(None, Some(SystemIdentifier(number)));
    assert_eq!(by_identifier(12).expect("b").name.as_str(), "b");
    assert!(matches!(by_identifier(13), Err(ConfigError::UnknownIdentifier { .. })));
    assert!(matches!(several.select(None, None), Err(ConfigError::SeveralClusters { .. })));
    let a: ClusterName = "a".parse().expect("a name");
    let named = several.select(Some(&a), Some(SystemIdentifier(12))).expect("by name");
    assert_eq!(named.name, a);
    let error = named.check_identity(SystemIdentifier(12)).expect_err("another server");
    assert_eq!(error.to_string(), "cluster \"a\" has system identifier 11 (/etc/pitr.toml:4), but this server has 12");
    let d: ClusterName = "d".parse().expect("a name");
    assert!(matches!(several.select(Some(&d), None), Err(ConfigError::UnknownCluster { .. })));

    let twice = "[cluster.a]\nsystem_identifier = 11\n[cluster.b]\nsystem_identifier = 11\n";
    let error = config(twice, &[]).expect(twice).select(None, Some(SystemIdentifier(11)));
    assert!(matches!(error, Err(ConfigError::SameIdentifier { .. })));
}

/// A password never stands in the configuration: the file may be read by all and the value is shown.
#[test]
fn passwords() {
    for conninfo in [
        "host=/tmp password=secret",
        "host=/tmp password = 'secret'",
        "sslpassword=x",
        "postgres://u:secret@h/db",
        "postgresql://u@h/db?password=x",
    ] {
        let config =
            config("[repository]\npath = \"/r\"\n[cluster.a]\n", &[("PITR_CONNINFO", conninfo)]).expect("a file");
        let error = config.select(None, None).expect_err(conninfo);
        assert!(matches!(error, ConfigError::Password { .. }) && !error.to_string().contains("secret"), "{error}");
    }
    for conninfo in ["host=/tmp passfile=/x", "postgres://u@h:5432/db", "postgres://h:5432,g:5433/db"] {
        let config =
            config("[repository]\npath = \"/r\"\n[cluster.a]\n", &[("PITR_CONNINFO", conninfo)]).expect("a file");
        config.select(None, None).expect(conninfo);
    }
}

/// A repository in a bucket: its settings stand beside it, in the environment, or in the table of a cluster with a repository
/// of its own, for which those of the shared one do not count.
#[test]
fn buckets() {
    let text = "[repository]\npath = \"s3://bucket/a/b\"\ns3_endpoint = \"https://s3.example.com\"\ns3_tags = \"a=b\"\n\
                [cluster.a]\n[cluster.b]\nrepository = \"s3://other\"\ns3_region = \"eu-west-1\"\n[cluster.c]\nrepository = \"/r\"\n";
    let all = config(text, &[("PITR_S3_ATTEMPTS", "3")]).expect(text);
    let bucket = |name: &str| match all.cluster(&name.parse().expect("a name")).expect(name).repository {
        Location::S3(settings) => settings,
        Location::Directory(_) => panic!("{name} lies in a bucket"),
    };
    let (a, b) = (bucket("a"), bucket("b"));
    assert_eq!(
        (a.url().as_str(), a.endpoint.as_deref(), a.attempts),
        ("s3://bucket/a/b", Some("https://s3.example.com"), 3)
    );
    assert!(a.uses_path_style() && a.tags.header().is_some());
    assert_eq!((b.url().as_str(), b.endpoint.as_deref(), b.region.as_deref()), ("s3://other", None, Some("eu-west-1")));
    assert!(b.tags.header().is_none());
    let c = all.cluster(&"c".parse().expect("a name")).expect("a directory");
    assert!(c.entries().iter().all(|entry| !entry.name.starts_with("s3_")), "a directory has no such settings");

    for (name, value) in [
        ("s3_endpoint", "s3.example.com"),
        ("s3_endpoint", "https://user:secret@host"),
        ("s3_style", "both"),
        ("s3_ca_file", "ca.pem"),
        ("s3_storage_class", "DEEP_ARCHIVE"),
        ("s3_encryption", "sse"),
        ("s3_encryption", "sse-c"),
        ("s3_request_payer", "requester"),
        ("s3_tags", "a"),
        ("s3_object_lock", "30d"),
        ("s3_attempts", "0"),
        ("s3_upload_limit", "20"),
        ("s3_download_limit", "0MB"),
        ("s3_customer_key_file", "/nonexistent"),
    ] {
        let text = format!("[repository]\npath = \"s3://bucket\"\n{name} = \"{value}\"\n[cluster.a]\n");
        let error = config(&text, &[]).and_then(|config| config.select(None, None)).expect_err(&text);
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// The key of SSE-C may come from the environment; it is used and never shown.
#[test]
fn customer_key() {
    let text = "[repository]\npath = \"s3://bucket\"\ns3_encryption = \"sse-c\"\n[cluster.a]\n";
    let secret = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    let all = config(text, &[("PITR_S3_CUSTOMER_KEY", secret)]).expect(text);
    let cluster = all.select(None, None).expect("a key");
    assert_eq!(cluster.origin("s3_customer_key").to_string(), "environment variable PITR_S3_CUSTOMER_KEY");
    assert!(!format!("{:?}", cluster).contains("QUFB"), "shown");
    let error = config(text, &[("PITR_S3_CUSTOMER_KEY", "short")]).and_then(|all| all.select(None, None));
    assert!(!error.expect_err("too short").to_string().contains("short"));
}

/// Further repositories stand in tables of their own, keep the order of the file, and take nothing from the first one; `config show`
/// tells where each setting came from.
#[test]
fn mirrors() {
    let text = "[repository]\npath = \"s3://bucket\"\ns3_tags = \"a=b\"\n[cluster.a]\npush_policy = 2\n\
                [cluster.a.mirror.west]\npath = \"s3://bucket\"\ns3_endpoint = \"https://west\"\n\
                [cluster.a.mirror.east]\npath = \"/e\"\n[cluster.b]\n";
    let all = config(text, &[("PITR_S3_ATTEMPTS", "3"), ("PITR_REPOSITORY", "/first")]).expect(text);
    let a = all.cluster(&"a".parse().expect("a name")).expect("three repositories");
    let names = |cluster: &ClusterConfig| {
        cluster.repositories().iter().map(|place| place.name.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&a), "first west east");
    assert_eq!((a.push_policy.needed(3), a.repository.to_string().as_str()), (2, "/first"));
    let Location::S3(west) = &a.mirrors[0].location else { panic!("a bucket") };
    assert_eq!(
        (west.attempts, west.tags.header().is_some()),
        (10, false),
        "neither the environment's nor the first one's"
    );
    let shown = a.entries().iter().find(|entry| entry.name == "mirror.west.s3_endpoint").expect("shown");
    assert_eq!(shown.value.as_deref(), Some("https://west"));
    assert!(shown.origin.to_string().ends_with(":8"), "{}", shown.origin);
    let from_east = a.clone().seen_from(Some(&"east".parse().expect("a name"))).expect("known");
    assert_eq!((names(&from_east).as_str(), from_east.repository.to_string().as_str()), ("east first west", "/e"));
    assert!(matches!(a.seen_from(Some(&"north".parse().expect("a name"))), Err(ConfigError::UnknownRepository { .. })));
    let b = all.cluster(&"b".parse().expect("a name")).expect("one");
    assert!(!b.has_mirrors() && b.push_policy == PushPolicy::All);

    for (wrong, says) in [
        ("[cluster.a.mirror.west]\n", "has no path"),
        ("[cluster.a.mirror.first]\npath = \"/e\"\n", "\"first\""),
        ("[cluster.a.mirror.West]\npath = \"/e\"\n", "\"West\""),
        ("[cluster.a.mirror.west]\npath = \"e\"\n", "mirror.west.path"),
        (
            "[cluster.a.mirror.west]\npath = \"/e\"\nspool = \"/s\"\n",
            "unknown name \"spool\" in [cluster.a.mirror.west]",
        ),
        ("[cluster.a.mirror.west]\npath = \"/r\"\n", "are the same place"),
        ("[cluster.a.mirror.west]\npath = \"/r/west\"\n", "lies in the other"),
        ("[cluster.a.mirror]\nwest = \"/e\"\n", "\"west\""),
        ("[cluster.a]\npush_policy = 2\n", "push_policy"),
        ("[cluster.a]\npush_policy = 0\n", "push_policy"),
        ("[cluster.a]\npush_policy = \"most\"\n", "push_policy"),
        ("[defaults.mirror.west]\npath = \"/e\"\n[cluster.a]\n", "unknown name \"mirror\" in [defaults]"),
    ] {
        let text = format!("[repository]\npath = \"/r\"\n{wrong}");
        let error = config(&text, &[]).and_then(|config| config.select(None, None)).expect_err(&text);
        assert!(error.to_string().contains(says), "{wrong}: {error}");
    }
}
