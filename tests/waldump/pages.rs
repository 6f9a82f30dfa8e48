//! Page images give the pages that PostgreSQL says: its own reader saves them (16 and later), and those of new indexes are in
//! the indexes' files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use pitr::wal::{DATA_PAGE_SIZE, Lsn, RelationFile};

use super::harness::{Options, Postgres, Run, Server, Stop, TestDir, as_test_user, majors};
use super::ours::{self, Everything};
use super::record::Block;
use super::{compressions, judged, segments, work};

/// Where a page stands: tablespace and so on, fork, block.
type Place = (RelationFile, u8, u32);

fn place(block: &Block) -> Place {
    (block.file, block.fork, block.block)
}

/// A server that has written page images with each of its methods. Gives the methods.
fn with_images(dir: &TestDir, archive: &Path, postgres: &Postgres) -> (Server, BTreeSet<String>) {
    let methods = compressions(postgres);
    let options = Options::default()
        .segment_size_mib(1)
        .archive_command(&format!("cp %p {}/%f", archive.display()))
        .set("autovacuum", "off");
    let server = Server::running(dir, postgres, &options);
    work::lines(&server, TABLE);
    for method in &methods {
        work::lines(&server, &format!("SET wal_compression = {method}\n{}", IMAGES.replace("METHOD", method)));
    }
    server.archive_all();
    (server, methods.into_iter().collect())
}

const TABLE: &str = "
    CREATE TABLE keys(i int, t text, b box, a int[])
    INSERT INTO keys SELECT i, md5((i % 300)::text), box(point(i % 100, i), point(i % 100 + 2, i + 2)), ARRAY[i % 50, i % 7, i] FROM generate_series(1, 2000) i
";

/// New indexes of every kind; rows of a table, and indexes, after a checkpoint.
const IMAGES: &str = "
    CREATE INDEX METHOD_btree ON keys(t, i)
    CREATE INDEX METHOD_hash ON keys USING hash(i)
    CREATE INDEX METHOD_gin ON keys USING gin(a)
    CREATE INDEX METHOD_gist ON keys USING gist(b)
    CREATE INDEX METHOD_spgist ON keys USING spgist(t)
    CREATE INDEX METHOD_brin ON keys USING brin(i)
    CHECKPOINT
    UPDATE keys SET i = i WHERE i % 100 = 0
    VACUUM keys
";

/// Methods of the images, by the setting's words.
fn used(ours: &Everything) -> BTreeSet<String> {
    let images = ours.pages.iter().filter_map(|page| page.block.image.as_ref());
    images.map(|image| format!("{:?}", image.compression).to_lowercase()).collect()
}

fn expected(methods: &BTreeSet<String>) -> BTreeSet<String> {
    let method = |word: &String| match word.as_str() {
        "off" => "none".to_owned(),
        "on" => "pglz".to_owned(),
        other => other.to_owned(),
    };
    methods.iter().map(method).collect()
}

/// `00000001-00000000-01A3F2C8.1663.5.16384.3_main`: before 17 without the timeline.
fn saved(name: &str) -> Option<(Lsn, Place)> {
    let (position, rest) = name.split_once('.')?;
    let mut halves = position.rsplit('-');
    let (low, high) = (halves.next()?, halves.next()?);
    let (numbers, fork) = rest.rsplit_once('_')?;
    let mut numbers = numbers.split('.').map(|number| number.parse::<u32>().ok());
    let mut number = || numbers.next()?;
    let file = RelationFile { tablespace: number()?, database: number()?, relation: number()? };
    let block = number()?;
    let fork = ["main", "fsm", "vm", "init"].iter().position(|name| *name == fork)?;
    Some((format!("{high}/{low}").parse().ok()?, (file, fork.try_into().ok()?, block)))
}

/// Promise: every page image becomes the page that PostgreSQL's own reader makes of it.
#[test]
fn pages_are_what_pg_waldump_saves() {
    for postgres in judged().into_iter().filter(|postgres| postgres.major >= 16) {
        let dir = TestDir::new();
        let archive = dir.make_dir("archive");
        let (_server, methods) = with_images(&dir, &archive, &postgres);
        let segments = segments(&archive, 1);
        let name = |at: usize| segments[at].file_name().expect("a name").to_owned();
        let mut command = as_test_user(postgres.waldump().expect("there is one"));
        command.arg("--save-fullpage").arg(dir.join("pages")).arg("--quiet").arg("--path").arg(&archive);
        command.arg(name(0)).arg(name(segments.len() - 1)).run();

        let mut theirs = BTreeMap::new();
        for entry in fs::read_dir(dir.join("pages")).expect("pages were saved") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            theirs.insert(saved(name).unwrap_or_else(|| panic!("{name}")), fs::read(&path).expect("a page"));
        }
        let ours = ours::read(&segments, true);
        assert_eq!(used(&ours), expected(&methods));
        for page in &ours.pages {
            let theirs = theirs.remove(&(page.lsn, place(&page.block)));
            assert!(theirs.as_deref() == Some(&page.bytes[..]), "PostgreSQL {}: {:?}", postgres.major, page.block);
        }
        // What we do not hand out whole may lack images.
        let cut: BTreeSet<Lsn> = ours.records.iter().filter(|read| !read.whole).map(|read| read.record.lsn).collect();
        theirs.retain(|(lsn, _), _| !cut.contains(lsn));
        assert!(theirs.is_empty(), "PostgreSQL {}: {:?}", postgres.major, theirs.keys());
        eprintln!("PostgreSQL {}: {} pages agree, {} records were cut", postgres.major, ours.pages.len(), cut.len());
    }
}

/// Promise: what an image gives is the page, for every method of every major: new indexes are in their files as in the WAL.
#[test]
fn pages_of_new_indexes_are_in_their_files() {
    for postgres in majors() {
        let postgres = super::with_most_methods(postgres);
        let dir = TestDir::new();
        let archive = dir.make_dir("archive");
        let (mut server, methods) = with_images(&dir, &archive, &postgres);
        let indexes = server.ask_all(
            "SELECT pg_relation_filenode(oid) || ' ' || pg_relation_filepath(oid) FROM pg_class
             WHERE relkind = 'i' AND relnamespace = 'public'::regnamespace",
        );
        server.stop(Stop::Fast);
        let ours = ours::read(&segments(&archive, 1), true);
        assert_eq!(used(&ours), expected(&methods));
        // A page is as its image says if nothing was changed in it later.
        let mut last = BTreeMap::new();
        for read in &ours.records {
            last.extend(read.record.blocks.iter().map(|block| (place(block), read.record.lsn)));
        }
        let mut seen = BTreeSet::new();
        for index in indexes {
            let (relation, path) = index.split_once(' ').expect("two words");
            let content = fs::read(server.data_dir().join(path)).expect("the index can be read");
            let relation: u32 = relation.parse().expect("a number");
            // Metapages are left out: SP-GiST keeps notes in its own that change without a record.
            let of_index = |page: &&ours::Page| page.block.file.relation == relation && page.block.block > 0;
            for page in ours.pages.iter().filter(of_index).filter(|page| page.block.fork == 0) {
                if last.get(&place(&page.block)) == Some(&page.lsn) {
                    let at = page.block.block as usize * DATA_PAGE_SIZE;
                    same_page(page, &content[at..at + DATA_PAGE_SIZE]);
                    seen.insert((relation, page.block.block));
                }
            }
        }
        eprintln!("PostgreSQL {}: {} pages are in their files", postgres.major, seen.len());
        assert!(seen.len() > 50 * methods.len(), "PostgreSQL {}: {}", postgres.major, seen.len());
    }
}

/// The image and the page in its file are the same but for what is set after the record was made (position and checksum), and
/// what stands in the hole.
fn same_page(page: &ours::Page, stored: &[u8]) {
    const SET_LATER: usize = 10;
    let image = page.block.image.as_ref().expect("it is of an image");
    let hole = usize::from(image.hole_offset)..usize::from(image.hole_offset) + usize::from(image.hole_length);
    for at in (SET_LATER..DATA_PAGE_SIZE).filter(|at| !hole.contains(at)) {
        assert_eq!(page.bytes[at], stored[at], "byte {at} of {:?}, at {}", page.block, page.lsn);
    }
    assert!(page.bytes[hole].iter().all(|byte| *byte == 0));
}
