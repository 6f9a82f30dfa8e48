//! `UPLOAD_MANIFEST`: hands the server an earlier backup's manifest, so that it can tell what has changed since (17 and later; manual,
//! "Streaming Replication Protocol"; `UploadManifest` in `walsender.c`).

use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend::{self, CopyData};

use super::error::ReplicationError;
use super::frames::{Frame, out_of_step};
use super::session::Session;

const DOING: &str = "handing over an earlier backup's manifest";

/// Bytes of one message.
const PIECE_BYTES: usize = 64 << 10;

impl Session {
    /// Hands over a `backup_manifest`, for the next base backup of this session that is to be incremental.
    ///
    /// # Errors
    /// [`ReplicationError::Server`] leaves the session usable: the server does not take the manifest.
    pub fn upload_manifest(&mut self, manifest: &[u8]) -> Result<(), ReplicationError> {
        self.send_query("UPLOAD_MANIFEST", DOING)?;
        match self.receive(DOING)? {
            Frame::Message(Message::CopyInResponse(_)) => {}
            _ => return Err(self.unexpected(DOING, "something else than the request for the manifest")),
        }
        for piece in manifest.chunks(PIECE_BYTES) {
            let message = CopyData::new(piece).map_err(|error| out_of_step(DOING, error.to_string()))?;
            message.write(self.out());
            self.send(DOING)?;
        }
        frontend::copy_done(self.out());
        self.send(DOING)?;
        while self.receive_result(DOING)?.is_some() {}
        Ok(())
    }
}
