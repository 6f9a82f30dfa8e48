//! TLS: which certificates are believed under which `sslmode`, and channel binding.

use std::path::PathBuf;
use std::process::Command;

use pitr::replication::{Patience, ReplicationError, Session, SessionKind};

use crate::harness::dir::chown_to_test_user;
use crate::harness::{Options, Run, Server, TestDir, majors, newest};
use crate::{connect, parse_at_home};

const OPENSSL: &str = "[req]\ndistinguished_name = dn\n[dn]\n[ca]\nbasicConstraints = critical,CA:TRUE\n\
    keyUsage = keyCertSign,cRLSign\n[names]\nsubjectAltName = DNS:db.example,DNS:*.wild.example\n[none]\nbasicConstraints = CA:FALSE\n";

const EC: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

/// An authority in a directory, and what it signs.
struct Authority<'d> {
    dir: &'d TestDir,
}

impl<'d> Authority<'d> {
    fn new(dir: &'d TestDir) -> Self {
        dir.write("openssl.cnf", OPENSSL);
        let authority = Authority { dir };
        authority.make("ca", "test authority", "ca", EC, false);
        authority
    }

    /// Makes `<name>.crt` and `<name>.key`.
    fn make(&self, name: &str, common_name: &str, extensions: &str, key: &[&str], signed: bool) -> PathBuf {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-days", "2", "-config"]).arg(self.dir.join("openssl.cnf"));
        openssl.args(key).args(["-extensions", extensions, "-subj", &format!("/CN={common_name}")]);
        openssl.arg("-keyout").arg(self.key(name)).arg("-out").arg(self.certificate(name));
        if signed {
            openssl.arg("-CA").arg(self.certificate("ca")).arg("-CAkey").arg(self.key("ca"));
        }
        openssl.run().ok();
        chown_to_test_user(&self.key(name));
        self.certificate(name)
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.crt"))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.key"))
    }

    fn root(&self) -> String {
        format!("sslrootcert={}", self.certificate("ca").display())
    }
}

const HBA: &str = "local all all trust\n\
    hostssl all,replication by_scram 127.0.0.1/32 scram-sha-256\n\
    hostssl all,replication by_certificate 127.0.0.1/32 cert\n\
    hostnossl all,replication in_clear 127.0.0.1/32 trust\n\
    hostssl all,replication in_tls 127.0.0.1/32 trust\n";

/// A server with the certificate, and a connection string for its address and the role with a password.
fn server(
    dir: &TestDir,
    postgres: &crate::harness::Postgres,
    authority: &Authority<'_>,
    name: &str,
) -> (Server, String) {
    let options = Options { hba: Some(HBA.to_owned()), ..Options::named(name).tcp() }
        .set("ssl", "on")
        .set("ssl_cert_file", authority.certificate(name).display())
        .set("ssl_key_file", authority.key(name).display())
        .set("ssl_ca_file", authority.certificate("ca").display())
        .set("password_encryption", "scram-sha-256");
    let server = Server::running(dir, postgres, &options);
    server.run(
        "CREATE ROLE by_scram LOGIN REPLICATION PASSWORD 'sesame'; CREATE ROLE by_certificate LOGIN REPLICATION;
         CREATE ROLE in_clear LOGIN REPLICATION; CREATE ROLE in_tls LOGIN REPLICATION",
    );
    let address = format!("hostaddr=127.0.0.1 port={} password=sesame", server.port());
    (server, address)
}

fn error(conninfo: &str) -> String {
    connect(conninfo, SessionKind::Physical).expect_err(conninfo).to_string()
}

fn encrypted(conninfo: &str) -> bool {
    connect(conninfo, SessionKind::Physical).unwrap_or_else(|error| panic!("{conninfo}: {error}")).is_encrypted()
}

/// Promise: `verify-full` believes the right name under the right root and nothing else, the weaker modes check what they
/// say and no more, and SCRAM is bound to the channel; on every major.
#[test]
fn modes() {
    for postgres in majors() {
        let dir = TestDir::new();
        let authority = Authority::new(&dir);
        authority.make("server", "not.the.name", "names", EC, true);
        let (_server, address) = server(&dir, &postgres, &authority, "server");
        let (address, root) = (format!("{address} user=by_scram"), authority.root());
        for host in ["db.example", "DB.example", "a.wild.example"] {
            assert!(encrypted(&format!("{address} host={host} sslmode=verify-full channel_binding=require {root}")));
        }
        for host in ["other.example", "not.the.name", "a.b.wild.example", "127.0.0.1"] {
            let error = error(&format!("{address} host={host} sslmode=verify-full {root}"));
            assert!(error.contains("could not set up TLS") && error.contains("not valid for name"), "{error}");
        }
        assert!(encrypted(&format!("{address} host=other.example sslmode=verify-ca {root}")));
        assert!(encrypted(&format!("{address} host=other.example sslmode=require channel_binding=require")));
        assert!(encrypted(&format!("{address} sslmode=prefer channel_binding=disable")));

        // Another authority of the same name is no help.
        let elsewhere = TestDir::new();
        let other = Authority::new(&elsewhere).root();
        for mode in ["require", "verify-ca", "verify-full"] {
            let error = error(&format!("{address} host=db.example sslmode={mode} {other}"));
            assert!(error.contains("could not set up TLS"), "{error}");
        }
        let error = error(&format!("{address} host=db.example sslmode=verify-full"));
        assert!(error.contains("there is no root certificate file"), "{error}");
    }
}

/// Promise: certificates made as PostgreSQL's manual shows are believed as libpq believes them, whatever their key and
/// hash; where channel binding is not defined, requiring it fails and preferring it does not.
#[test]
fn kinds_of_certificates() {
    let dir = TestDir::new();
    let authority = Authority::new(&dir);
    let pss: &[&str] = &["-newkey", "rsa:2048", "-sha512", "-sigopt", "rsa_padding_mode:pss"];
    authority.make("common_name", "db.example", "none", &["-newkey", "rsa:2048", "-sha384"], true);
    authority.make("wild_common_name", "*.example", "none", EC, true);
    authority.make("itself", "db.example", "ca", pss, false);
    for name in ["common_name", "wild_common_name", "itself"] {
        let (_server, address) = server(&dir, &newest(), &authority, name);
        let root = match name {
            "itself" => format!("sslrootcert={}", authority.certificate(name).display()),
            _ => authority.root(),
        };
        let full = format!("{address} user=by_scram sslmode=verify-full channel_binding=require {root}");
        assert!(encrypted(&format!("{full} host=db.example")), "{name}");
        let error = error(&format!("{full} host=db.example.other"));
        assert!(error.contains("could not set up TLS"), "{error}");
    }
    authority.make("edwards", "db.example", "names", &["-newkey", "ed25519"], false);
    let (_server, address) = server(&dir, &newest(), &authority, "edwards");
    let weak = format!("{address} user=by_scram host=db.example sslmode=require");
    assert!(encrypted(&weak));
    let error = error(&format!("{weak} channel_binding=require"));
    assert!(error.contains("channel_binding=require"), "{error}");
}

/// Promise: `prefer` and `allow` find the way that the server lets us in by, `require` never gives up encryption, and a
/// server without TLS is refused by name.
#[test]
fn ways_in() {
    let dir = TestDir::new();
    let authority = Authority::new(&dir);
    authority.make("server", "db.example", "names", EC, true);
    let (_server, address) = server(&dir, &newest(), &authority, "server");
    for (user, mode, expected) in [
        ("in_clear", "disable", Some(false)),
        ("in_clear", "allow", Some(false)),
        ("in_clear", "prefer", Some(false)),
        ("in_clear", "require", None),
        ("in_tls", "disable", None),
        ("in_tls", "allow", Some(true)),
        ("in_tls", "prefer", Some(true)),
        ("in_tls", "require", Some(true)),
    ] {
        let conninfo = format!("{address} user={user} sslmode={mode}");
        match expected {
            Some(expected) => assert_eq!(encrypted(&conninfo), expected, "{user} {mode}"),
            None => assert!(error(&conninfo).contains("pg_hba.conf"), "{user} {mode}"),
        }
    }
    let plain = Server::running(&dir, &newest(), &Options::named("plain").tcp());
    assert!(!encrypted(&format!("{} sslmode=prefer", plain.conninfo_tcp("postgres"))));
    let refused = connect(&format!("{} sslmode=require", plain.conninfo_tcp("postgres")), SessionKind::Physical);
    assert!(matches!(refused, Err(ReplicationError::TlsNotOffered { .. })));
}

/// Promise: a client certificate logs in, from the settings or from the home directory, and a key that others may read
/// is refused.
#[test]
fn client_certificates() {
    let dir = TestDir::new();
    let authority = Authority::new(&dir);
    authority.make("server", "db.example", "names", EC, true);
    authority.make("client", "by_certificate", "none", EC, true);
    let (_server, address) = server(&dir, &newest(), &authority, "server");
    let conninfo = format!("{address} user=by_certificate sslmode=require");
    let (certificate, key) = (authority.certificate("client"), authority.key("client"));
    assert!(encrypted(&format!("{conninfo} sslcert={} sslkey={}", certificate.display(), key.display())));
    assert!(error(&conninfo).contains("certificate"));

    let home = dir.make_dir(".postgresql");
    std::fs::copy(&certificate, home.join("postgresql.crt")).expect("a copy");
    std::fs::copy(&key, home.join("postgresql.key")).expect("a copy");
    std::fs::copy(authority.certificate("ca"), home.join("root.crt")).expect("a copy");
    let attempt = || {
        let info = parse_at_home(&format!("{conninfo} host=db.example"), Some(dir.path().to_owned()), &[]);
        Session::connect(&info, SessionKind::Physical, &Patience::default())
    };
    assert!(attempt().expect("all from the home directory").is_encrypted());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(home.join("postgresql.key"), mode).expect("a mode");
    let error = attempt().expect_err("others may read the key").to_string();
    assert!(error.contains("others may read it"), "{error}");
}
