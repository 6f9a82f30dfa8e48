//! Whoever issues credentials on a machine, and a proxy: small HTTP servers in the test process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::json;

use super::s3_server::keys::{Keys, now};

/// The token that the instance's metadata service wants to see again.
const SESSION: &str = "a-session";
/// The security token that comes with issued keys.
pub(crate) const TOKEN: &str = "a-token";

/// What arrived: method, path, headers and content.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) content: String,
}

/// A server that answers each request by a function.
pub(crate) struct Small {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Small {
    fn start(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Small {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (answer, kept) = (Arc::new(answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                std::thread::spawn(move || {
                    let Some(asked) = read(&stream) else { return };
                    let (status, content) = answer(&asked);
                    kept.lock().expect("no panic under it").push(asked);
                    let length = content.len();
                    let mut stream = stream;
                    let _ = write!(
                        stream,
                        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\
                         x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\r\n{content}"
                    );
                });
            }
        });
        Small { address, asked }
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic under it").clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut content = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut content).ok()?;
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Asked { method, path, head, content: String::from_utf8_lossy(&content).into_owned() })
}

/// When keys that are issued now expire.
fn expiry(seconds: u64) -> String {
    let at = Timestamp::from_second(i64::try_from(now() + seconds).expect("a time")).expect("a time");
    at.to_string()
}

/// What a container's and an instance's service answer.
fn document(seconds: u64) -> String {
    let (key, secret) = Keys::issue();
    json!({
        "Code": "Success", "Type": "AWS-HMAC", "AccountId": "123456789012", "LastUpdated": expiry(0),
        "AccessKeyId": key, "SecretAccessKey": secret, "Token": TOKEN, "Expiration": expiry(seconds),
    })
    .to_string()
}

/// The metadata service of an instance with a role, second version: without its session it tells nothing.
pub(crate) fn instance(seconds: u64) -> Small {
    Small::start(move |asked| {
        if asked.method == "PUT" && asked.path == "/latest/api/token" {
            return (200, SESSION.to_owned());
        }
        if !asked.head.contains(SESSION) {
            return (401, String::new());
        }
        match asked.path.as_str() {
            "/latest/meta-data/iam/security-credentials/" => (200, "the-role".to_owned()),
            "/latest/meta-data/iam/security-credentials/the-role" => (200, document(seconds)),
            _ => (404, String::new()),
        }
    })
}

/// The service of a container with a role; it wants an authorization.
pub(crate) fn container(seconds: u64, authorization: &'static str) -> Small {
    Small::start(move |asked| {
        let authorized = asked.head.lines().any(|line| line.trim_end().ends_with(authorization));
        if authorized && asked.path == "/credentials" { (200, document(seconds)) } else { (403, String::new()) }
    })
}

/// Amazon's service that gives credentials to whoever brings the token of an identity provider.
pub(crate) fn web_identity(seconds: u64, token: &'static str) -> Small {
    Small::start(move |asked| {
        let fits = ["Action=AssumeRoleWithWebIdentity", &format!("WebIdentityToken={token}")];
        if !fits.iter().all(|part| asked.content.contains(part)) {
            return (403, String::new());
        }
        let (key, secret) = Keys::issue();
        let content = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>\
             <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>\
             <Expiration>{}</Expiration></Credentials><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn>\
             <AssumedRoleId>AROA:s</AssumedRoleId></AssumedRoleUser></AssumeRoleWithWebIdentityResult>\
             <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>",
            expiry(seconds)
        );
        (200, content)
    })
}

/// An HTTP proxy that brings everything to one server, whatever it is called. Counts the connections.
pub(crate) fn proxy(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&seen);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || forward(client, to, &kept));
        }
    });
    (address, seen)
}

/// One request after the other: `GET http://host/path` becomes `GET /path`.
fn forward(client: TcpStream, to: SocketAddr, seen: &Mutex<Vec<String>>) -> Option<()> {
    let server = TcpStream::connect(to).ok()?;
    let (mut back, mut out) = (server.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut out);
        let _ = out.shutdown(std::net::Shutdown::Both);
    });
    let (mut reader, mut server) = (BufReader::new(client), server);
    loop {
        let (mut line, mut length) = (String::new(), 0_u64);
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        seen.lock().ok()?.push(line.clone());
        let (method, rest) = line.split_once(' ')?;
        let url = rest.strip_prefix("http://")?;
        write!(server, "{method} {}", &url[url.find('/')?..]).ok()?;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok()?;
            }
            server.write_all(header.as_bytes()).ok()?;
            if header == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut server).ok()?;
    }
}
