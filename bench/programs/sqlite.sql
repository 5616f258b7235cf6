PRAGMA journal_mode = memory;
CREATE TABLE item (id INTEGER PRIMARY KEY, shelf INTEGER, name TEXT, price REAL);
BEGIN;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
INSERT INTO item SELECT i, i * 7919 % 101, 'item' || (i * 104729 % 65537), i * 37 % 100 / 10.0 FROM n;
COMMIT;
CREATE INDEX item_name ON item (name);
CREATE INDEX item_shelf ON item (shelf, price);
UPDATE item SET price = price + 1 WHERE shelf % 3 = 0;
DELETE FROM item WHERE id % 17 = 0;
SELECT shelf, count(*), round(sum(price), 1) FROM item GROUP BY shelf ORDER BY 3 DESC LIMIT 5;
SELECT count(*), max(a.name) FROM item a JOIN item b ON a.shelf = b.shelf AND a.price = b.price AND a.id < b.id;
SELECT count(*) FROM item WHERE name LIKE '%99%';
