-- What the tables of keys are made with.
CREATE OR REPLACE FUNCTION new_id(ids text, at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS
	$$ SELECT CASE ids WHEN 'v7' THEN uuid_v7(at) ELSE gen_random_uuid() END $$;
CREATE TABLE keyed ();
