BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v2.6.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'S');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,10,19.0);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'optimizer.lr',6.82407842709883754803e-04,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 0.01}}');
INSERT INTO "trial_params" VALUES(2,1,'optimizer.weight_decay',7.20324493442158098055e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(3,1,'trainer.picture_share',0.0,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
INSERT INTO "trial_params" VALUES(4,1,'seed',3.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 9, "step": 1}}');
INSERT INTO "trial_params" VALUES(5,1,'model.quantizer.codebook_size',23.0,'{"name": "IntLogUniformDistribution", "attributes": {"low": 16, "high": 256, "step": 1}}');
INSERT INTO "trial_params" VALUES(6,1,'model',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["vqmodel", "emavq"]}}');
INSERT INTO "trial_params" VALUES(7,2,'optimizer.lr',4.91045181846597091762e-04,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 0.01}}');
INSERT INTO "trial_params" VALUES(8,2,'optimizer.weight_decay',3.96767474230669936474e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(9,2,'trainer.picture_share',0.5,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
INSERT INTO "trial_params" VALUES(10,2,'seed',4.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 9, "step": 1}}');
INSERT INTO "trial_params" VALUES(11,2,'model.quantizer.codebook_size',106.0,'{"name": "IntLogUniformDistribution", "attributes": {"low": 16, "high": 256, "step": 1}}');
INSERT INTO "trial_params" VALUES(12,2,'model',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["vqmodel", "emavq"]}}');
INSERT INTO "trial_params" VALUES(13,3,'optimizer.lr',1.13442342658352527599e-04,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 0.01}}');
INSERT INTO "trial_params" VALUES(14,3,'optimizer.weight_decay',6.70467510178402226195e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(15,3,'trainer.picture_share',0.5,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
INSERT INTO "trial_params" VALUES(16,3,'seed',6.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 9, "step": 1}}');
INSERT INTO "trial_params" VALUES(17,3,'model.quantizer.codebook_size',23.0,'{"name": "IntLogUniformDistribution", "attributes": {"low": 16, "high": 256, "step": 1}}');
INSERT INTO "trial_params" VALUES(18,3,'model',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["vqmodel", "emavq"]}}');
INSERT INTO "trial_params" VALUES(19,4,'optimizer.lr',8.6401871870298921352e-03,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 0.01}}');
INSERT INTO "trial_params" VALUES(20,4,'optimizer.weight_decay',3.13424178159242838859e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(21,4,'trainer.picture_share',0.75,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
INSERT INTO "trial_params" VALUES(22,4,'seed',8.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 9, "step": 1}}');
INSERT INTO "trial_params" VALUES(23,4,'model.quantizer.codebook_size',191.0,'{"name": "IntLogUniformDistribution", "attributes": {"low": 16, "high": 256, "step": 1}}');
INSERT INTO "trial_params" VALUES(24,4,'model',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["vqmodel", "emavq"]}}');
INSERT INTO "trial_params" VALUES(25,5,'optimizer.lr',2.18605376554596855321e-04,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 0.01}}');
INSERT INTO "trial_params" VALUES(26,5,'optimizer.weight_decay',8.78142503429413134874e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(27,5,'trainer.picture_share',0.0,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
INSERT INTO "trial_params" VALUES(28,5,'seed',4.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 9, "step": 1}}');
INSERT INTO "trial_params" VALUES(29,5,'model.quantizer.codebook_size',228.0,'{"name": "IntLogUniformDistribution", "attributes": {"low": 16, "high": 256, "step": 1}}');
INSERT INTO "trial_params" VALUES(30,5,'model',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["vqmodel", "emavq"]}}');
INSERT INTO "trial_params" VALUES(31,6,'optimizer.lr',1.13442342658352527599e-04,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 0.01}}');
INSERT INTO "trial_params" VALUES(32,6,'optimizer.weight_decay',6.70467510178402226195e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(33,6,'trainer.picture_share',0.5,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
INSERT INTO "trial_params" VALUES(34,6,'seed',6.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 9, "step": 1}}');
INSERT INTO "trial_params" VALUES(35,6,'model.quantizer.codebook_size',23.0,'{"name": "IntLogUniformDistribution", "attributes": {"low": 16, "high": 256, "step": 1}}');
INSERT INTO "trial_params" VALUES(36,6,'model',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["vqmodel", "emavq"]}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,6,'failed_trial','2');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'data','"videos"');
INSERT INTO "trial_user_attributes" VALUES(2,2,'data','"videos"');
INSERT INTO "trial_user_attributes" VALUES(3,3,'data','"videos"');
INSERT INTO "trial_user_attributes" VALUES(4,4,'data','"videos"');
INSERT INTO "trial_user_attributes" VALUES(5,5,'data','"videos"');
INSERT INTO "trial_user_attributes" VALUES(6,6,'data','"videos"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,20.0);
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-27 20:24:22.053724','2026-11-27 20:24:23.460983');
INSERT INTO "trials" VALUES(2,1,1,'FAIL','2026-11-27 20:24:22.330607','2026-11-27 20:24:23.496048');
INSERT INTO "trials" VALUES(3,2,1,'FAIL','2026-11-27 20:24:22.614289','2026-11-27 20:24:23.515982');
INSERT INTO "trials" VALUES(4,3,1,'FAIL','2026-11-27 20:24:22.894415','2026-11-27 20:24:23.612066');
INSERT INTO "trials" VALUES(5,4,1,'RUNNING','2026-11-27 20:24:23.166331',NULL);
INSERT INTO "trials" VALUES(6,5,1,'WAITING',NULL,NULL);
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'2.10.1');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
COMMIT;
