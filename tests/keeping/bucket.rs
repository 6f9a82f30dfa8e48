//! The same in a bucket.

use super::harness::{Options, Run, Site, newest};
use super::s3_server::{Fault, S3Server};
use super::{LONG, expire, full_backup, ids, rows_of, try_expire, up_to};

/// Promise: in a bucket too everything of a forgotten backup goes and nothing else; credentials that may not delete are told as that,
/// and the next run with others finishes; unfinished uploads of killed processes are given up.
#[test]
fn expires_in_a_bucket() {
    let server = S3Server::start();
    let mut site = Site::unprepared(&newest(), Options::default().segment_size_mib(1), "");
    site.configure(&server.settings());
    site.pitr(&["init"]).run().ok();
    site.archive();
    let made: Vec<String> = (1..=2).map(|n| full_backup(&site, n)).collect();
    site.pitr(&["forget", "--yes", &made[0]]).run_within(LONG).ok();
    expire(&site, 0);
    let before = server.objects.names();
    for kind in ["DELETE", "POST delete"] {
        server.faults.add(kind, "", 10_000, Fault::Refuse(403, "AccessDenied"));
    }
    let refused = try_expire(&site, 4).fails_with(8).says("could not remove").says("s3:DeleteObject");
    drop(refused);
    server.faults.clear();
    let lost = before.iter().filter(|name| !server.objects.names().contains(name)).count();
    assert_eq!(lost, 0, "nothing was removed");
    assert_eq!(rows_of(&site, &made[1], 1), up_to(2));
    expire(&site, 4);
    let names = server.objects.names();
    let left: Vec<_> = names.iter().filter(|name| name.contains(&made[0]) || name.contains("/doomed/")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(ids(&site), made[1..]);
    assert_eq!(rows_of(&site, &made[1], 2), up_to(2));
    site.pitr(&["status"]).run_within(LONG).ok();
}
