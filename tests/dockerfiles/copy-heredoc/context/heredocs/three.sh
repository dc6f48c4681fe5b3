#!/bin/sh
echo tabs
