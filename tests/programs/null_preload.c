/* A preload library that does nothing: with it in the place of the real one, every test that means the path must fail. */
int shs_null_preload(void);
int shs_null_preload(void)
{
    return 0;
}
