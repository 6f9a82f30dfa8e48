//! Logging in: trust, cleartext, MD5 and SCRAM-SHA-256, with channel binding where both sides can.
//!
//! As libpq does, a cleartext password is sent when the server asks for it, over any channel; whoever does not want
//! that sets `sslmode=verify-full` or `channel_binding=require`, under which nothing but SCRAM-SHA-256-PLUS will do.

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use super::conninfo::{ChannelBindingMode, ConnInfo, Endpoint, PasswordFor, Secret};
use super::error::ReplicationError;
use super::frames::{Frame, out_of_step, server_message};
use super::wire::Wire;

const DOING: &str = "logging in";

/// Who logs in where.
pub(super) struct Login<'a> {
    pub(super) info: &'a ConnInfo,
    pub(super) endpoint: &'a Endpoint,
    /// The name under which the password file lists this kind of session.
    pub(super) passfile_database: &'a str,
    /// Channel binding data, where TLS gives any.
    pub(super) end_point: Option<Vec<u8>>,
}

impl Login<'_> {
    /// Answers the server until it says that we are in.
    pub(super) fn run(&self, wire: &mut Wire) -> Result<(), ReplicationError> {
        let bound = self.info.channel_binding == ChannelBindingMode::Require;
        let mut proved = false;
        loop {
            let message = next(wire)?;
            if bound && !proved && !matches!(message, Message::AuthenticationSasl(_)) {
                return Err(self.failed("channel_binding=require, but the server does not ask for SCRAM"));
            }
            match message {
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(self.password()?.reveal().as_bytes(), &mut wire.out).map_err(sending)?;
                    wire.send(DOING)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let password = self.password()?;
                    let hash = md5_hash(self.info.user.as_bytes(), password.reveal().as_bytes(), body.salt());
                    frontend::password_message(hash.as_bytes(), &mut wire.out).map_err(sending)?;
                    wire.send(DOING)?;
                }
                Message::AuthenticationSasl(body) => {
                    self.scram(wire, &body)?;
                    proved = true;
                }
                Message::AuthenticationGss | Message::AuthenticationSspi | Message::AuthenticationKerberosV5 => {
                    return Err(self.failed("the server asks for GSSAPI, SSPI or Kerberos, which are not supported"));
                }
                _ => return Err(out_of_step(DOING, "neither a request for proof nor a welcome".to_owned())),
            }
        }
    }

    /// The SCRAM exchange. The server, too, has to prove that it knows the password.
    fn scram(&self, wire: &mut Wire, offer: &AuthenticationSaslBody) -> Result<(), ReplicationError> {
        let offered: Vec<String> = offer
            .mechanisms()
            .map(|name| Ok(name.to_owned()))
            .collect()
            .map_err(|error| out_of_step(DOING, error.to_string()))?;
        let (mechanism, binding) = self.mechanism(wire.is_encrypted(), &offered)?;
        let password = self.password()?;
        let mut scram = ScramSha256::new(password.reveal().as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, scram.message(), &mut wire.out).map_err(sending)?;
        wire.send(DOING)?;
        let Message::AuthenticationSaslContinue(body) = next(wire)? else {
            return Err(out_of_step(DOING, "SCRAM broken off".to_owned()));
        };
        scram.update(body.data()).map_err(|error| self.failed(&format!("SCRAM: {error}")))?;
        frontend::sasl_response(scram.message(), &mut wire.out).map_err(sending)?;
        wire.send(DOING)?;
        let Message::AuthenticationSaslFinal(body) = next(wire)? else {
            return Err(out_of_step(DOING, "SCRAM broken off".to_owned()));
        };
        scram
            .finish(body.data())
            .map_err(|error| self.failed(&format!("the server could not prove that it knows the password: {error}")))
    }

    /// Chooses between the offered mechanisms (RFC 5802 section 6 on what to say about channel binding).
    fn mechanism(
        &self,
        encrypted: bool,
        offered: &[String],
    ) -> Result<(&'static str, ChannelBinding), ReplicationError> {
        let has = |name: &str| offered.iter().any(|offer| offer == name);
        let data = self.end_point.clone().filter(|_| self.info.channel_binding != ChannelBindingMode::Disable);
        match (self.info.channel_binding, data) {
            (ChannelBindingMode::Require, _) if !encrypted => {
                Err(self.failed("channel_binding=require, but the connection is not encrypted"))
            }
            (ChannelBindingMode::Require, _) if !has(SCRAM_SHA_256_PLUS) => {
                Err(self.failed("channel_binding=require, but the server does not offer SCRAM-SHA-256-PLUS"))
            }
            (ChannelBindingMode::Require, None) => Err(self.failed(
                "channel_binding=require, but the server certificate's signature algorithm allows no channel binding",
            )),
            (_, Some(data)) if has(SCRAM_SHA_256_PLUS) => {
                Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(data)))
            }
            // "We could, but you do not": a server that does offer it then knows that someone took the offer away.
            (_, Some(_)) if has(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
            (_, None) if has(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
            _ => Err(self.failed(&format!("the server offers only {}", offered.join(", ")))),
        }
    }

    fn password(&self) -> Result<Secret, ReplicationError> {
        match self.info.password_for(self.endpoint, self.passfile_database) {
            PasswordFor::Known(password) => Ok(password),
            PasswordFor::Missing(unused) => Err(ReplicationError::NoPassword {
                server: self.endpoint.to_string(),
                user: self.info.user.clone(),
                unused,
            }),
        }
    }

    fn failed(&self, reason: &str) -> ReplicationError {
        ReplicationError::Authentication { server: self.endpoint.to_string(), reason: reason.to_owned() }
    }
}

/// The next message of the login, errors apart. Notices do not come before the login is done.
fn next(wire: &mut Wire) -> Result<Message, ReplicationError> {
    match wire.receive(DOING)? {
        Frame::Message(Message::ErrorResponse(body)) => {
            Err(ReplicationError::Server(Box::new(server_message(&mut body.fields()))))
        }
        Frame::Message(message) => Ok(message),
        Frame::CopyData(_) | Frame::CopyBoth => Err(out_of_step(DOING, "copy data".to_owned())),
    }
}

/// A password with a zero byte in it, in practice.
fn sending(error: std::io::Error) -> ReplicationError {
    ReplicationError::Argument { what: "password", reason: error.to_string() }
}
